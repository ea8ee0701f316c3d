{{/* The name of the chart, in the labels of all objects. */}}
{{- define "watchkeeper.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{/* The name of this installation. All its objects have names that begin with it, except those of
models. 40 characters leave room for the suffixes and for the labels that a StatefulSet adds. */}}
{{- define "watchkeeper.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else -}}
{{- $name := include "watchkeeper.name" . -}}
{{- contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{/* The prefix of cluster-scoped names. Namespaces and models contain no dot, so two installations
never have the same name. */}}
{{- define "watchkeeper.clusterName" -}}
{{ include "watchkeeper.fullname" . }}.{{ .Release.Namespace }}
{{- end }}

{{/* The uid and file name of this installation's Grafana dashboard: one Grafana may show several
installations. Names in Kubernetes contain no underscore, so two installations never have the same
uid. Grafana's limit is 40 characters. */}}
{{- define "watchkeeper.dashboardUid" -}}
{{- $name := include "watchkeeper.fullname" . -}}
{{- $uid := eq $name .Release.Namespace | ternary $name (printf "%s_%s" $name .Release.Namespace) -}}
{{- le (len $uid) 40 | ternary $uid (sha256sum $uid | trunc 40) -}}
{{- end }}

{{/* The labels of an object: {root, component, model} */}}
{{- define "watchkeeper.labels" -}}
app.kubernetes.io/name: {{ include "watchkeeper.name" .root }}
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

{{/* The labels of a pod. They do not contain the version: a changed label restarts the pod. */}}
{{- define "watchkeeper.podLabels" -}}
app.kubernetes.io/name: {{ include "watchkeeper.name" .root }}
{{ include "watchkeeper.selector" . }}
{{- with .model }}
watchkeeper/model: {{ . }}
{{- end }}
{{- end }}

{{- define "watchkeeper.tag" -}}
{{- .Values.images.tag | default .Chart.AppVersion -}}
{{- end }}

{{/* The image of a model's training or serving, its own or that of the component: {root, component, model} */}}
{{- define "watchkeeper.modelImage" -}}
{{- (index .model .component).image | default (include "watchkeeper.image" .) -}}
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

{{/* The version of the code that trains models without an image of their own */}}
{{- define "watchkeeper.codeVersion" -}}
{{- .Values.training.codeVersion | default (include "watchkeeper.tag" .) -}}
{{- end }}

{{- define "watchkeeper.trainingNamespace" -}}
{{- .Values.training.namespace | default (printf "%s-training" .Release.Namespace) -}}
{{- end }}

{{- define "watchkeeper.secret" -}}
{{- .Values.secrets.existing | default (include "watchkeeper.fullname" .) -}}
{{- end }}

{{- define "watchkeeper.trainingSecret" -}}
{{- $sameNamespace := eq (include "watchkeeper.trainingNamespace" .) .Release.Namespace -}}
{{- .Values.secrets.existingTraining | default ($sameNamespace | ternary (include "watchkeeper.secret" .) (include "watchkeeper.fullname" .)) -}}
{{- end }}

{{/* The Secret with the token by which the servers know the gateway; empty where the gateway is not
Envoy Gateway, the only one that can add a token. No value changes the name: the servers of a version
keep what they mount. */}}
{{- define "watchkeeper.gatewaySecret" -}}
{{- if .Values.gateway.retries -}}
{{ include "watchkeeper.fullname" . }}-gateway
{{- end -}}
{{- end }}

{{/* Where the URLs are with which sidecars write the ledger, as YAML: `secret` has the key `own[<model>]` for
a model with a writer of its own, and the key `shared` for all others; `shared` is empty if there are none */}}
{{- define "watchkeeper.ledgerWriters" -}}
{{- $own := dict -}}
{{- $shared := "" -}}
{{- range $name, $model := include "watchkeeper.models" . | fromYaml -}}
{{- $key := empty $.Values.secrets.existing | ternary $name $model.ledgerKey -}}
{{- if $key }}{{ $_ := set $own $name $key }}{{ else }}{{ $shared = "ledger-writer-url" }}{{ end -}}
{{- end -}}
{{- dict "secret" (.Values.secrets.existing | default (printf "%s-ledger-writers" (include "watchkeeper.fullname" .))) "own" $own "shared" $shared | toYaml -}}
{{- end }}

{{/* The files of a client that reads the ledger and calls MLflow: {root, user}, as items of a Secret volume */}}
{{- define "watchkeeper.clientSecrets" -}}
- {key: ledger-reader-url, path: ledger-url}
{{- if .root.Values.mlflow.auth.enabled }}
- {key: {{ include "watchkeeper.mlflowKey" . }}, path: mlflow-password}
{{- end }}
{{- end }}

{{- define "watchkeeper.mlflowScheme" -}}
{{ empty (include "watchkeeper.certificate" (dict "root" . "server" "mlflow")) | ternary "http" "https" }}
{{- end }}

{{- define "watchkeeper.mlflowURL" -}}
{{- if .Values.mlflow.enabled -}}
{{ include "watchkeeper.mlflowScheme" . }}://{{ include "watchkeeper.fullname" . }}-mlflow.{{ .Release.Namespace }}.svc:5000
{{- else -}}
{{- required "mlflow.url: name your MLflow, or leave mlflow.enabled true" .Values.mlflow.url -}}
{{- end -}}
{{- end }}

{{/* The number of rollout controllers, or of servers of a model: {root, replicas} */}}
{{- define "watchkeeper.replicas" -}}
{{- max (int .replicas) (.root.Values.highAvailability | ternary 2 1) -}}
{{- end }}

{{/* All models, each merged with the defaults, as YAML */}}
{{- define "watchkeeper.models" -}}
{{- $all := dict -}}
{{- range $name, $given := .Values.models -}}
{{- $model := mergeOverwrite (deepCopy $.Values.defaults) (deepCopy ($given | default dict)) -}}
{{- if not $model.hostnames -}}
{{- $_ := set $model "hostnames" (list $name (printf "%s.%s" $name $.Release.Namespace)) -}}
{{- end -}}
{{- $_ := set $model "replicas" (include "watchkeeper.replicas" (dict "root" $ "replicas" $model.replicas) | int) -}}
{{- $_ := set $all $name $model -}}
{{- end -}}
{{- $all | toYaml -}}
{{- end }}

{{/* The key of the password with which a part calls MLflow: {root, user}; `user` is empty for the
administrator. An MLflow outside of the release knows one user. */}}
{{- define "watchkeeper.mlflowKey" -}}
{{- not (empty (and .user .root.Values.mlflow.enabled)) | ternary (printf "mlflow-%s-password" .user) "mlflow-password" -}}
{{- end }}

{{/* The environment of a client of MLflow that has the password as a file: {root, user} */}}
{{- define "watchkeeper.registryEnvironment" -}}
{{ include "watchkeeper.registryAddress" . }}
{{- if .root.Values.mlflow.auth.enabled }}
- {name: MLFLOW_TRACKING_PASSWORD_FILE, value: /run/secrets/watchkeeper/mlflow-password}
{{- end }}
{{- end }}

{{/* The environment of a client of MLflow, without the password: {root, user} */}}
{{- define "watchkeeper.registryAddress" -}}
- {name: MLFLOW_TRACKING_URI, value: {{ include "watchkeeper.mlflowURL" .root | quote }}}
{{- if include "watchkeeper.authority" (dict "root" .root "server" "mlflow") }}
- {name: MLFLOW_TRACKING_SERVER_CERT_PATH, value: /run/authorities/mlflow.crt}
{{- end }}
{{- if .root.Values.mlflow.auth.enabled }}
- {name: MLFLOW_TRACKING_USERNAME, value: {{ not (empty (and .user .root.Values.mlflow.enabled)) | ternary .user .root.Values.mlflow.auth.username | quote }}}
{{- end }}
- {name: MLFLOW_DISABLE_TELEMETRY, value: "true"}
- {name: MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR, value: "false"}
{{- end }}

{{/* Additional environment variables of a component, given as a list. The API server drops an empty
`value`; it is omitted here too, so that the admission policy on training Jobs compares equals. */}}
{{- define "watchkeeper.extraEnv" -}}
{{- range . }}
- name: {{ .name }}
  {{- with .value }}
  value: {{ . | quote }}
  {{- end }}
  {{- with .valueFrom }}
  valueFrom: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}

{{/* The environment by which the leases of a process belong to its pod. The host name is no replacement:
it has at most 63 characters of the pod's name. */}}
{{- define "watchkeeper.podEnvironment" -}}
- {name: WATCHKEEPER_POD_NAME, valueFrom: {fieldRef: {apiVersion: v1, fieldPath: metadata.name}}}
- {name: WATCHKEEPER_POD_UID, valueFrom: {fieldRef: {apiVersion: v1, fieldPath: metadata.uid}}}
{{- end }}

{{/* The WATCHKEEPER_PLATFORM of a component: the two namespaces and the name of the installation */}}
{{- define "watchkeeper.platform" -}}
kube:{{ .Release.Namespace }}/{{ include "watchkeeper.trainingNamespace" . }}/{{ include "watchkeeper.fullname" . }}
{{- end }}

{{/* User and groups by number. One that is null is left out: the cluster chooses it (OpenShift). */}}
{{- define "watchkeeper.podSecurity" -}}
runAsNonRoot: true
{{- range $field := list "runAsUser" "runAsGroup" "fsGroup" }}
{{- with get $.Values.podSecurityContext $field }}
{{ $field }}: {{ int64 . }}
{{- end }}
{{- end }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "watchkeeper.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
{{- with .Values.podSecurityContext.runAsUser }}
runAsUser: {{ int64 . }}
{{- end }}
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* The common part of a pod's spec: {root, values}; `values` are those of its component */}}
{{- define "watchkeeper.pod" -}}
securityContext: {{- include "watchkeeper.podSecurity" .root | nindent 2 }}
enableServiceLinks: false
{{- with .root.Values.images.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{/* The metadata of a pod: {root, component, model, values} */}}
{{- define "watchkeeper.podMetadata" -}}
labels: {{- include "watchkeeper.podLabels" . | nindent 2 }}
{{- with .values.podAnnotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
