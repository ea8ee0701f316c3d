{{/* The policies of a model as YAML: {root, name}. The rollout controller creates them before the
route and the servers that they protect, and deletes them after those. */}}
{{- define "watchkeeper.policies" -}}
{{- $root := .root }}
{{- $model := .name }}
{{- $mode := $root.Values.auth.clients.mode }}
policies:
{{- if ne $mode "none" }}
  - kind: SecurityPolicy
    metadata: {name: {{ $model }}-clients}
    spec:
      targetRefs:
        - group: gateway.networking.k8s.io
          kind: HTTPRoute
          name: {{ $model }}
      {{- include (printf "watchkeeper.policies.%s" $mode) $root | nindent 6 }}
  # Feedback has a credential of its own, which the server checks. Health checks have none.
  - kind: SecurityPolicy
    metadata: {name: {{ $model }}-open}
    spec:
      targetRefs:
        {{- range $rule := list "open-grpc" "open-http" }}
        - group: gateway.networking.k8s.io
          kind: HTTPRoute
          name: {{ $model }}
          sectionName: {{ $rule }}
        {{- end }}
      authorization:
        defaultAction: Allow
{{- end }}
{{- with include "watchkeeper.certificate" (dict "root" $root "server" "servers") }}
  # How the gateway calls the servers that have a certificate; the rollout controller adds those.
  - kind: BackendTLSPolicy
    metadata: {name: {{ $model }}}
    spec:
      validation:
        hostname: {{ include "watchkeeper.serversHost" $root }}
        caCertificateRefs: [{group: "", kind: Secret, name: {{ . }}}]
{{- end }}
{{- if $root.Values.networkPolicies.enabled }}
{{- $component := "watchkeeper.networkPolicy.component" }}
  - kind: NetworkPolicy
    metadata: {name: {{ $model }}-server}
    spec:
      # The pod of the server, the sidecar, and the container that fetches the version.
      podSelector:
        matchLabels:
          app.kubernetes.io/part-of: watchkeeper
          app.kubernetes.io/component: server
          watchkeeper/model: {{ $model }}
      policyTypes: [Ingress, Egress]
      ingress:
        - from: [{{ toJson $root.Values.networkPolicies.gateway }}, {podSelector: {{ include $component "test" }}}]
          ports: [{port: 8080}, {port: 8443}, {port: 9000}, {port: 9443}]
        - from: [{podSelector: {{ include $component "cli" }}}]
          ports: [{port: 9090}]
        {{- if $root.Values.monitoring.podMonitors }}
        - from: [{{ toJson $root.Values.monitoring.prometheus }}]
          ports: [{port: 8082}, {port: 9090}]
        {{- end }}
      egress:
        {{- include "watchkeeper.networkPolicy.dns" $root | nindent 8 }}
        {{- include "watchkeeper.networkPolicy.api" $root | nindent 8 }}
        {{- include "watchkeeper.networkPolicy.stores" (dict "policies" $root.Values.networkPolicies "namespace" "") | nindent 8 }}
{{- end }}
{{- end }}

{{- define "watchkeeper.policies.apiKey" -}}
{{- with .Values.auth.clients.apiKey }}
{{- if not .secretNames }}
{{- fail "auth.clients.apiKey.secretNames: name at least one Secret with a key for each client" }}
{{- end }}
apiKeyAuth:
  credentialRefs:
    {{- range .secretNames }}
    - name: {{ . }}
    {{- end }}
  extractFrom:
    - headers: {{ toJson .headers }}
  forwardClientIDHeader: x-watchkeeper-client
  sanitize: true
{{- end }}
{{- end }}

{{- define "watchkeeper.policies.jwt" -}}
{{- with .Values.auth.clients.jwt }}
{{- if not .audiences }}
{{- fail "auth.clients.jwt.audiences: name at least one; otherwise tokens that were issued for other services would be valid here" }}
{{- end }}
jwt:
  providers:
    - name: clients
      issuer: {{ required "auth.clients.jwt.issuer: name the issuer of the tokens" .issuer | quote }}
      audiences: {{ toJson .audiences }}
      {{- if .jwksConfigMap }}
      localJWKS:
        type: ValueRef
        valueRef:
          group: ""
          kind: ConfigMap
          name: {{ .jwksConfigMap }}
      {{- else }}
      remoteJWKS:
        uri: {{ required "auth.clients.jwt: give jwksUri or jwksConfigMap" .jwksUri | quote }}
      {{- end }}
      extractFrom:
        headers:
          - name: {{ .header }}
            {{- if eq (lower .header) "authorization" }}
            valuePrefix: "Bearer "
            {{- end }}
      claimToHeaders:
        - claim: {{ .clientClaim }}
          header: x-watchkeeper-client
{{- end }}
{{- end }}
