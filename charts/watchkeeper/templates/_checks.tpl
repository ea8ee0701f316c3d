{{/* What the schema cannot check. It is included once, by installation.yaml. */}}
{{- define "watchkeeper.checks" -}}
{{- if and (ne .Values.auth.clients.mode "none") (not .Values.gateway.retries) }}
{{- fail (printf "auth.clients.mode %s needs Envoy Gateway: set gateway.retries true, or authenticate clients at your own gateway" .Values.auth.clients.mode) }}
{{- end }}
{{- if and .Values.mlflow.enabled (gt (int .Values.mlflow.replicas) 1) (not .Values.mlflow.artifacts.destination) }}
{{- fail (printf "mlflow.replicas is %d, but its files are on a volume that one node can mount: store them in S3 (mlflow.artifacts.destination), or set mlflow.replicas 1" (int .Values.mlflow.replicas)) }}
{{- end }}
{{- $problem := and .Release.IsInstall (include "watchkeeper.gatewayProblem" .) }}
{{- if $problem }}
{{- fail $problem }}
{{- end }}
{{- include "watchkeeper.checkTLS" . }}
{{- include "watchkeeper.checkSteps" (dict "name" "rollout.policy.steps" "steps" .Values.rollout.policy.steps) }}
{{- range $name, $model := include "watchkeeper.models" . | fromYaml }}
{{- include "watchkeeper.checkSteps" (dict "name" (printf "models.%s.policies.rollout.steps" $name) "steps" $model.policies.rollout.steps) }}
{{- /* KServe makes a host name of model, version and namespace. Two digits are for the version. */}}
{{- $host := printf "%s-v10-predictor-%s" $name $.Release.Namespace }}
{{- if and $.Release.IsInstall (gt (len $host) 63) }}
{{- fail (printf "model %s in namespace %s: KServe makes the host name %s, which is longer than 63 characters: choose a namespace of at most %d characters, or a shorter model name" $name $.Release.Namespace $host (sub (add 63 (len $.Release.Namespace)) (len $host))) }}
{{- end }}
{{- end }}
{{- end }}

{{/* The canary steps of a policy: {name, steps} */}}
{{- define "watchkeeper.checkSteps" -}}
{{- $last := 0 }}
{{- range .steps }}
{{- if le (int .) $last }}
{{- fail (printf "%s: the steps must rise, and %d follows %d" $.name (int .) $last) }}
{{- end }}
{{- $last = int . }}
{{- end }}
{{- end }}

{{/* The models that are trained, as a JSON list. One without a source may come from somewhere else. */}}
{{- define "watchkeeper.trainedModels" -}}
{{- $trained := list -}}
{{- range $name, $model := include "watchkeeper.models" . | fromYaml -}}
{{- if $model.source.secretName }}{{ $trained = append $trained $name }}{{ end -}}
{{- end -}}
{{- $trained | toJson -}}
{{- end }}

{{/* The Secrets in the namespace of the release that somebody else creates: the keys by name, as YAML */}}
{{- define "watchkeeper.givenSecrets" -}}
{{- $secrets := dict -}}
{{- if .Values.secrets.existing -}}
{{- $keys := list "signing-key" "feedback-token" "ledger-url" "ledger-reader-url" -}}
{{- $writers := include "watchkeeper.ledgerWriters" . | fromYaml -}}
{{- $keys = concat $keys (values $writers.own) (compact (list $writers.shared)) -}}
{{- if .Values.postgresql.enabled }}{{ $keys = append $keys "database-password" }}{{ end -}}
{{- if .Values.mlflow.enabled }}{{ $keys = append $keys "mlflow-url" }}{{ end -}}
{{- if .Values.mlflow.auth.enabled -}}
{{- range $user := list "" "serving" "training" -}}
{{- $keys = append $keys (include "watchkeeper.mlflowKey" (dict "root" $ "user" $user)) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $secrets .Values.secrets.existing (uniq $keys | sortAlpha) -}}
{{- end -}}
{{- $gateway := include "watchkeeper.gatewaySecret" . -}}
{{- if and $gateway (not .Values.gateway.createTokenSecret) -}}
{{- $_ := set $secrets $gateway (list "credential") -}}
{{- end -}}
{{- $secrets | toYaml -}}
{{- end }}

{{/* The container that checks the keys of Secrets: {root, secrets}; `secrets` are those of givenSecrets */}}
{{- define "watchkeeper.secretsCheckContainer" -}}
name: secrets
image: {{ include "watchkeeper.image" (dict "root" .root "component" "cli") }}
imagePullPolicy: {{ .root.Values.images.pullPolicy }}
command: [python, -m, watchkeeper.core.secret_keys]
args:
  - /run/secrets
  {{- range $name, $keys := .secrets }}
  {{- range $keys }}
  - {{ $name }}/{{ . }}
  {{- end }}
  {{- end }}
{{- with include "watchkeeper.extraEnv" .root.Values.cli.extraEnv }}
env: {{- . | nindent 2 }}
{{- end }}
terminationMessagePolicy: FallbackToLogsOnError
resources: {{- toYaml .root.Values.cli.resources | nindent 2 }}
securityContext: {{- include "watchkeeper.containerSecurity" .root | nindent 2 }}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  {{- range $number, $name := keys .secrets | sortAlpha }}
  - {name: secret-{{ $number }}, mountPath: /run/secrets/{{ $name }}, readOnly: true}
  {{- end }}
{{- end }}

{{/* The models that are trained by each training image, as YAML */}}
{{- define "watchkeeper.trainedByImage" -}}
{{- $images := dict -}}
{{- $models := include "watchkeeper.models" . | fromYaml -}}
{{- range $name := include "watchkeeper.trainedModels" . | fromJsonArray -}}
{{- $image := include "watchkeeper.modelImage" (dict "root" $ "component" "training" "model" (get $models $name)) -}}
{{- $_ := set $images $image (append (get $images $image | default list) $name) -}}
{{- end -}}
{{- $images | toYaml -}}
{{- end }}

{{/* The container that checks that a training image declares its models: {root, name, image, models} */}}
{{- define "watchkeeper.modelsCheckContainer" -}}
name: {{ .name }}
image: {{ .image }}
imagePullPolicy: {{ .root.Values.images.pullPolicy }}
command: [python, -m, watchkeeper.training.check_parameters]
args: {{ .models | toJson }}
{{- with include "watchkeeper.extraEnv" .root.Values.cli.extraEnv }}
env: {{- . | nindent 2 }}
{{- end }}
terminationMessagePolicy: FallbackToLogsOnError
resources: {{- toYaml .root.Values.cli.resources | nindent 2 }}
securityContext: {{- include "watchkeeper.containerSecurity" .root | nindent 2 }}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
{{- end }}

{{/* Why the Gateway cannot take the routes, as far as the cluster says; empty if nothing is wrong.
`helm template` cannot ask the cluster; then the status of each model has the reason. */}}
{{- define "watchkeeper.gatewayProblem" -}}
{{- if lookup "v1" "Namespace" "" "kube-system" -}}
{{- if .Values.gateway.create -}}
{{- include "watchkeeper.createdGatewayProblem" . -}}
{{- else -}}
{{- include "watchkeeper.existingGatewayProblem" . -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Gateways of a class that share one Envoy cannot have listeners for the same port and host names. */}}
{{- define "watchkeeper.createdGatewayProblem" -}}
{{- $gateway := .Values.gateway -}}
{{- $class := lookup "gateway.networking.k8s.io/v1" "GatewayClass" "" $gateway.className -}}
{{- $proxy := dig "spec" "parametersRef" dict $class -}}
{{- if not $class -}}
gateway.className: there is no GatewayClass {{ $gateway.className }}
{{- else if eq ($proxy.kind | default "") "EnvoyProxy" -}}
{{- $shared := dig "spec" "mergeGateways" false (lookup "gateway.envoyproxy.io/v1alpha1" "EnvoyProxy" ($proxy.namespace | default "") $proxy.name) -}}
{{- $protocol := empty $gateway.tls.secretName | ternary "HTTP" "HTTPS" -}}
{{- range $other := $shared | ternary (lookup "gateway.networking.k8s.io/v1" "Gateway" "" "").items list -}}
{{- $own := and (eq $other.metadata.name (include "watchkeeper.fullname" $)) (eq $other.metadata.namespace $.Release.Namespace) -}}
{{- range $other.spec.listeners -}}
{{- if and (not $own) (eq $other.spec.gatewayClassName $gateway.className) (eq (int .port) (int $gateway.port)) (or (not .hostname) (ne .protocol $protocol)) -}}
gateway.port: the Gateway {{ $other.metadata.namespace }}/{{ $other.metadata.name }} has a listener on port {{ $gateway.port }} already, and the Gateways of the class {{ $gateway.className }} share one Envoy (mergeGateways): choose another port, or use that Gateway (gateway.existing). {{ end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "watchkeeper.existingGatewayProblem" -}}
{{- $given := .Values.gateway.existing -}}
{{- $namespace := $given.namespace | default .Release.Namespace -}}
{{- $what := printf "gateway.existing: Gateway %s/%s" $namespace $given.name -}}
{{- $found := lookup "gateway.networking.k8s.io/v1" "Gateway" $namespace $given.name -}}
{{- if not $found -}}
{{ $what }} does not exist
{{- else -}}
{{- $names := list -}}
{{- $wanted := list -}}
{{- $allowing := list -}}
{{- range $found.spec.listeners -}}
{{- $names = append $names .name -}}
{{- if or (not $given.sectionName) (eq .name $given.sectionName) -}}
{{- $wanted = append $wanted .name -}}
{{- if or (eq $namespace $.Release.Namespace) (ne (dig "allowedRoutes" "namespaces" "from" "Same" .) "Same") -}}
{{- $allowing = append $allowing .name -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $refusals := list -}}
{{- range $listener := dig "status" "listeners" list $found -}}
{{- range .conditions -}}
{{- if and (has $listener.name $allowing) (eq .type "Conflicted") (eq .status "True") -}}
{{- $refusals = append $refusals (printf "listener %s: %s: %s" $listener.name .reason .message) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if not $wanted -}}
{{ $what }} has no listener {{ $given.sectionName }}; it has {{ join ", " $names }}
{{- else if not $allowing -}}
{{ $what }} allows routes of its own namespace only (allowedRoutes of its listeners)
{{- else if eq (len $refusals) (len $allowing) -}}
{{ $what }}, {{ join "; " $refusals }}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "watchkeeper.checkTLS" -}}
{{- $issuer := .Values.tls.issuer.name }}
{{- $embedded := dict "mlflow" .Values.mlflow.enabled "database" .Values.postgresql.enabled "servers" true }}
{{- range $server, $given := .Values.tls.secrets }}
{{- if and $issuer $given (index $embedded $server) }}
{{- fail (printf "tls.secrets.%s is %s, but tls.issuer gives the embedded server its certificate: leave one of them empty" $server $given) }}
{{- end }}
{{- end }}
{{- with .Values.tls.secrets }}
{{- if and $embedded.mlflow $embedded.database (not $issuer) (ne (empty .mlflow) (empty .database)) }}
{{- fail (printf "tls.secrets.%s is empty, so one of MLflow and PostgreSQL would have TLS and the other not: name a Secret for both" (empty .mlflow | ternary "mlflow" "database")) }}
{{- end }}
{{- end }}
{{- if and .Values.tls.secrets.mlflow (not .Values.mlflow.enabled) (hasPrefix "http://" .Values.mlflow.url) }}
{{- fail (printf "tls.secrets.mlflow names the authority of an MLflow that has no TLS: mlflow.url is %s" .Values.mlflow.url) }}
{{- end }}
{{- end }}
