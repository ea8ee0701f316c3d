{{/* What the schema cannot check. It is included once, by installation.yaml. */}}
{{- define "watchkeeper.checks" -}}
{{- if and (ne .Values.auth.clients.mode "none") (not .Values.gateway.retries) }}
{{- fail (printf "auth.clients.mode %s needs Envoy Gateway: set gateway.retries true, or authenticate clients at your own gateway" .Values.auth.clients.mode) }}
{{- end }}
{{- if and .Values.mlflow.enabled (gt (int .Values.mlflow.replicas) 1) (not .Values.mlflow.artifacts.destination) }}
{{- fail (printf "mlflow.replicas is %d, but its files are on a volume that one node can mount: store them in S3 (mlflow.artifacts.destination), or set mlflow.replicas 1" (int .Values.mlflow.replicas)) }}
{{- end }}
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
