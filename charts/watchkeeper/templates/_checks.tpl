{{/* What the schema cannot check. It is included once, by installation.yaml. */}}
{{- define "watchkeeper.checks" -}}
{{- if and (ne .Values.auth.clients.mode "none") (not .Values.gateway.retries) }}
{{- fail (printf "auth.clients.mode %s needs Envoy Gateway: set gateway.retries true, or authenticate clients at your own gateway" .Values.auth.clients.mode) }}
{{- end }}
{{- if and .Values.mlflow.enabled (gt (int .Values.mlflow.replicas) 1) (not .Values.mlflow.artifacts.destination) }}
{{- fail (printf "mlflow.replicas is %d, but its files are on a volume that one node can mount: store them in S3 (mlflow.artifacts.destination), or set mlflow.replicas 1" (int .Values.mlflow.replicas)) }}
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

{{- define "watchkeeper.checkTLS" -}}
{{- $issuer := .Values.tls.issuer.name }}
{{- $embedded := dict "mlflow" .Values.mlflow.enabled "database" .Values.postgresql.enabled }}
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
