{{/* The store of snapshots, for training and the command line: variables, mounts and volumes, or nothing. */}}
{{- define "watchkeeper.snapshotsEnvironment" -}}
{{- with .Values.snapshots }}
{{- if .url }}
- {name: WATCHKEEPER_SNAPSHOTS_URL, value: {{ .url | quote }}}
{{- with .endpoint }}
- {name: WATCHKEEPER_SNAPSHOTS_ENDPOINT, value: {{ . | quote }}}
{{- end }}
{{- with .region }}
- {name: WATCHKEEPER_SNAPSHOTS_REGION, value: {{ . | quote }}}
{{- end }}
{{- if .secretName }}
- {name: WATCHKEEPER_SNAPSHOTS_ACCESS_KEY_FILE, value: /run/secrets/snapshots/access-key}
- {name: WATCHKEEPER_SNAPSHOTS_SECRET_KEY_FILE, value: /run/secrets/snapshots/secret-key}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "watchkeeper.snapshotsMount" -}}
{{- if and .Values.snapshots.url .Values.snapshots.secretName }}
- {name: snapshots, mountPath: /run/secrets/snapshots, readOnly: true}
{{- end }}
{{- end }}

{{/* {root, optional}: the pod of the command line starts without the Secret, a training run does not. */}}
{{- define "watchkeeper.snapshotsVolume" -}}
{{- with .root.Values.snapshots }}
{{- if and .url .secretName }}
- name: snapshots
  secret:
    secretName: {{ .secretName }}
    defaultMode: 420
    {{- if $.optional }}
    optional: true
    {{- end }}
    items: [{key: access-key, path: access-key}, {key: secret-key, path: secret-key}]
{{- end }}
{{- end }}
{{- end }}
