{{- define "watchkeeper.networkPolicy.labels" -}}
app.kubernetes.io/part-of: watchkeeper
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* The selector of a component's pods */}}
{{- define "watchkeeper.networkPolicy.component" -}}
{matchLabels: {app.kubernetes.io/part-of: watchkeeper, app.kubernetes.io/component: {{ . }}}}
{{- end }}

{{/* Egress to the DNS server */}}
{{- define "watchkeeper.networkPolicy.dns" -}}
- to: [{{ toJson .Values.networkPolicies.dns }}]
  ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
{{- end }}

{{/* Egress to the API server */}}
{{- define "watchkeeper.networkPolicy.api" -}}
{{- with .Values.networkPolicies.apiServer }}
- to: [{ipBlock: {cidr: {{ .cidr }}}}]
  ports:
    {{- range .ports }}
    - port: {{ . }}
    {{- end }}
{{- end }}
{{- end }}

{{/* Egress to MLflow and the database: {policies, namespace}; `namespace` is a namespaceSelector or
empty. */}}
{{- define "watchkeeper.networkPolicy.stores" -}}
- to: [{podSelector: {{ include "watchkeeper.networkPolicy.component" "mlflow" }}{{ .namespace }}}]
  ports: [{port: 5000}]
- to: [{podSelector: {{ include "watchkeeper.networkPolicy.component" "postgresql" }}{{ .namespace }}}]
  ports: [{port: 5432}]
{{- with concat .policies.ledger .policies.mlflow }}
{{ toYaml . }}
{{- end }}
{{- end }}
