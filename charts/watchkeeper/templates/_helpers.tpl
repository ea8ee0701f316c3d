{{- define "watchkeeper.labels" -}}
app.kubernetes.io/name: watchkeeper
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/part-of: watchkeeper
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- with .model }}
watchkeeper/model: {{ . }}
{{- end }}
{{- end }}

{{- define "watchkeeper.selector" -}}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/part-of: watchkeeper
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* What a pod is known by: nothing of it changes with a release, or it would restart for that */}}
{{- define "watchkeeper.podLabels" -}}
app.kubernetes.io/name: watchkeeper
{{ include "watchkeeper.selector" . }}
{{- with .model }}
watchkeeper/model: {{ . }}
{{- end }}
{{- end }}

{{- define "watchkeeper.tag" -}}
{{- .Values.images.tag | default .Chart.AppVersion -}}
{{- end }}

{{/* The image of a component: {root, component} */}}
{{- define "watchkeeper.image" -}}
{{- $images := .root.Values.images -}}
{{- $name := printf "%s/watchkeeper-%s" $images.registry .component -}}
{{- with index $images.digests .component -}}
{{ $name }}@{{ . }}
{{- else -}}
{{ $name }}:{{ include "watchkeeper.tag" .root }}
{{- end -}}
{{- end }}

{{- define "watchkeeper.codeVersion" -}}
{{- .Values.training.codeVersion | default (include "watchkeeper.tag" .) -}}
{{- end }}

{{- define "watchkeeper.trainingNamespace" -}}
{{- .Values.training.namespace | default (printf "%s-training" .Release.Namespace) -}}
{{- end }}

{{- define "watchkeeper.secret" -}}
{{- .Values.secrets.existing | default "watchkeeper" -}}
{{- end }}

{{- define "watchkeeper.trainingSecret" -}}
{{- $here := eq (include "watchkeeper.trainingNamespace" .) .Release.Namespace -}}
{{- .Values.secrets.existingTraining | default ($here | ternary (include "watchkeeper.secret" .) "watchkeeper") -}}
{{- end }}

{{/* What a client of ledger and MLflow has as files: items of a Secret's volume */}}
{{- define "watchkeeper.clientSecrets" -}}
- {key: ledger-url, path: ledger-url}
{{- if .Values.mlflow.auth.enabled }}
- {key: mlflow-password, path: mlflow-password}
{{- end }}
{{- end }}

{{- define "watchkeeper.mlflowURL" -}}
{{- if .Values.mlflow.enabled -}}
http://watchkeeper-mlflow.{{ .Release.Namespace }}.svc:5000
{{- else -}}
{{- required "mlflow.url: name your MLflow, or leave mlflow.enabled true" .Values.mlflow.url -}}
{{- end -}}
{{- end }}

{{/* The models with their defaults, as YAML */}}
{{- define "watchkeeper.models" -}}
{{- $all := dict -}}
{{- range $name, $given := .Values.models -}}
{{- $model := mergeOverwrite (deepCopy $.Values.defaults) (deepCopy ($given | default dict)) -}}
{{- if not $model.hostnames -}}
{{- $_ := set $model "hostnames" (list $name (printf "%s.%s" $name $.Release.Namespace)) -}}
{{- end -}}
{{- $_ := set $all $name $model -}}
{{- end -}}
{{- $all | toYaml -}}
{{- end }}

{{/* What a client of MLflow is told; its password is among its files */}}
{{- define "watchkeeper.registryEnvironment" -}}
{{ include "watchkeeper.registryPlace" . }}
{{- if .Values.mlflow.auth.enabled }}
- {name: MLFLOW_TRACKING_PASSWORD_FILE, value: /run/secrets/watchkeeper/mlflow-password}
{{- end }}
{{- end }}

{{- define "watchkeeper.registryPlace" -}}
- {name: MLFLOW_TRACKING_URI, value: {{ include "watchkeeper.mlflowURL" . | quote }}}
{{- if .Values.mlflow.auth.enabled }}
- {name: MLFLOW_TRACKING_USERNAME, value: {{ .Values.mlflow.auth.username | quote }}}
{{- end }}
- {name: MLFLOW_DISABLE_TELEMETRY, value: "true"}
- {name: MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR, value: "false"}
{{- end }}

{{- define "watchkeeper.platform" -}}
kube:{{ .Release.Namespace }}/{{ include "watchkeeper.trainingNamespace" . }}
{{- end }}

{{- define "watchkeeper.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "watchkeeper.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 65532
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* What every pod of ours begins with */}}
{{- define "watchkeeper.pod" -}}
securityContext: {{- include "watchkeeper.podSecurity" . | nindent 2 }}
enableServiceLinks: false
{{- with .Values.images.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
