{{/* What ends a hook's Job. Its command waits up to five minutes for what it needs, so a failure with
exit code 1 or 2 is final, and Helm gets the error at once. A pod that was evicted is replaced. */}}
{{- define "watchkeeper.hookFailures" -}}
podFailurePolicy:
  rules:
    - {action: Ignore, onPodConditions: [{type: DisruptionTarget, status: "True"}]}
    - {action: FailJob, onExitCodes: {operator: In, values: [1, 2]}}
{{- end }}

{{/* A container of the cli image: {root, name} */}}
{{- define "watchkeeper.cliContainer" -}}
{{- $client := dict "root" .root "servers" (list "mlflow" "database") -}}
name: {{ .name }}
image: {{ include "watchkeeper.image" (dict "root" .root "component" "cli") }}
imagePullPolicy: {{ .root.Values.images.pullPolicy }}
env:
  {{- include "watchkeeper.registryEnvironment" (dict "root" .root "user" "") | nindent 2 }}
  - {name: WATCHKEEPER_PLATFORM, value: {{ include "watchkeeper.platform" .root | quote }}}
  - {name: WATCHKEEPER_MODELS, value: {{ keys .root.Values.models | sortAlpha | toJson | quote }}}
  - {name: WATCHKEEPER_LEDGER_URL_FILE, value: /run/secrets/watchkeeper/ledger-url}
  {{- include "watchkeeper.ledgerEnvironment" $client | nindent 2 }}
  {{- include "watchkeeper.snapshotsEnvironment" .root | nindent 2 }}
  {{- include "watchkeeper.extraEnv" .root.Values.cli.extraEnv | nindent 2 }}
terminationMessagePolicy: FallbackToLogsOnError
resources: {{- toYaml .root.Values.cli.resources | nindent 2 }}
securityContext: {{- include "watchkeeper.containerSecurity" .root | nindent 2 }}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  - {name: secrets, mountPath: /run/secrets/watchkeeper, readOnly: true}
  {{- include "watchkeeper.snapshotsMount" .root | nindent 2 }}
  {{- include "watchkeeper.authoritiesMount" $client | nindent 2 }}
{{- end }}

{{/* The container that migrates the ledger and grants the rights of its users. */}}
{{- define "watchkeeper.migrationContainer" -}}
{{- $writers := include "watchkeeper.ledgerWriters" . | fromYaml -}}
{{- $client := dict "root" . "servers" (list "database") "running" true -}}
name: ledger
image: {{ include "watchkeeper.image" (dict "root" . "component" "cli") }}
imagePullPolicy: {{ .Values.images.pullPolicy }}
command: [python, -m, watchkeeper.ledger]
env:
  - {name: WATCHKEEPER_LEDGER_URL_FILE, value: /run/secrets/watchkeeper/ledger-url}
  - {name: WATCHKEEPER_LEDGER_READER_URL_FILE, value: /run/secrets/watchkeeper/ledger-reader-url}
  {{- if $writers.shared }}
  - {name: WATCHKEEPER_LEDGER_WRITER_URL_FILE, value: /run/secrets/watchkeeper/ledger-writer-url}
  {{- end }}
  {{- if $writers.own }}
  - {name: WATCHKEEPER_LEDGER_WRITER_URLS, value: /run/secrets/writers}
  {{- end }}
  {{- include "watchkeeper.ledgerEnvironment" $client | nindent 2 }}
  {{- include "watchkeeper.extraEnv" .Values.cli.extraEnv | nindent 2 }}
terminationMessagePolicy: FallbackToLogsOnError
resources: {{- toYaml .Values.cli.resources | nindent 2 }}
securityContext: {{- include "watchkeeper.containerSecurity" . | nindent 2 }}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  - {name: ledger, mountPath: /run/secrets/watchkeeper, readOnly: true}
  {{- if $writers.own }}
  - {name: writers, mountPath: /run/secrets/writers, readOnly: true}
  {{- end }}
  {{- include "watchkeeper.authoritiesMount" $client | nindent 2 }}
{{- end }}

{{/* The container that makes MLflow's user the owner of its database in the embedded PostgreSQL: a client of
that database */}}
{{- define "watchkeeper.mlflowOwnerContainer" -}}
{{- $values := .root.Values -}}
name: mlflow-owner
image: {{ include "watchkeeper.image" (dict "root" .root "component" "cli") }}
imagePullPolicy: {{ $values.images.pullPolicy }}
command: [python, -m, watchkeeper.ledger.mlflow_owner]
env:
  - {name: WATCHKEEPER_LEDGER_URL_FILE, value: /run/secrets/watchkeeper/ledger-url}
  - {name: WATCHKEEPER_MLFLOW_URL_FILE, value: /run/secrets/watchkeeper/mlflow-url}
  {{- include "watchkeeper.ledgerEnvironment" . | nindent 2 }}
  {{- include "watchkeeper.extraEnv" $values.cli.extraEnv | nindent 2 }}
terminationMessagePolicy: FallbackToLogsOnError
resources: {{- toYaml $values.cli.resources | nindent 2 }}
securityContext: {{- include "watchkeeper.containerSecurity" .root | nindent 2 }}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  - {name: mlflow-owner, mountPath: /run/secrets/watchkeeper, readOnly: true}
  {{- include "watchkeeper.authoritiesMount" . | nindent 2 }}
{{- end }}

{{- define "watchkeeper.mlflowOwnerVolume" -}}
name: mlflow-owner
secret:
  secretName: {{ include "watchkeeper.secret" . }}
  items: [{key: ledger-url, path: ledger-url}, {key: mlflow-url, path: mlflow-url}]
{{- end }}

{{- define "watchkeeper.cliVolumes" -}}
- {name: tmp, emptyDir: {}}
{{ include "watchkeeper.authorities" (dict "root" . "servers" (list "mlflow" "database")) }}
- name: secrets
  secret:
    secretName: {{ include "watchkeeper.secret" . }}
    items: {{- include "watchkeeper.clientSecrets" (dict "root" . "user" "") | nindent 6 }}
{{- include "watchkeeper.snapshotsVolume" (dict "root" . "optional" true) }}
{{- end }}
