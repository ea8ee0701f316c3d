{{/* A command that says no has waited for five minutes for what it needs, or needs not wait: Helm, which
waits for the hook, is told at once. Only a pod that was taken away is made again. */}}
{{- define "watchkeeper.hookFailures" -}}
podFailurePolicy:
  rules:
    - {action: Ignore, onPodConditions: [{type: DisruptionTarget, status: "True"}]}
    - {action: FailJob, onExitCodes: {operator: In, values: [1, 2]}}
{{- end }}

{{/* A container of the cli image: {root, name} */}}
{{- define "watchkeeper.cliContainer" -}}
name: {{ .name }}
image: {{ include "watchkeeper.image" (dict "root" .root "component" "cli") }}
imagePullPolicy: {{ .root.Values.images.pullPolicy }}
env:
  {{- include "watchkeeper.registryEnvironment" .root | nindent 2 }}
  - {name: WATCHKEEPER_PLATFORM, value: {{ include "watchkeeper.platform" .root | quote }}}
  - {name: WATCHKEEPER_MODELS, value: {{ keys .root.Values.models | sortAlpha | toJson | quote }}}
  - {name: WATCHKEEPER_LEDGER_URL_FILE, value: /run/secrets/watchkeeper/ledger-url}
terminationMessagePolicy: FallbackToLogsOnError
resources: {{- toYaml .root.Values.cli.resources | nindent 2 }}
securityContext: {{- include "watchkeeper.containerSecurity" .root | nindent 2 }}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  - {name: secrets, mountPath: /run/secrets/watchkeeper, readOnly: true}
{{- end }}

{{- define "watchkeeper.cliVolumes" -}}
- {name: tmp, emptyDir: {}}
- name: secrets
  secret:
    secretName: {{ include "watchkeeper.secret" . }}
    items: {{- include "watchkeeper.clientSecrets" . | nindent 6 }}
{{- end }}
