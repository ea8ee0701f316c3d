{{/* A Job that makes or restores backups of the embedded PostgreSQL: {root, command} */}}
{{- define "watchkeeper.backupJob" -}}
{{- $ := .root }}
{{- $backup := $.Values.postgresql.backup }}
{{- $part := dict "root" $ "component" "backup" "values" $.Values.postgresql }}
{{- $client := dict "root" $ "servers" (list "database") -}}
backoffLimit: 3
activeDeadlineSeconds: {{ $backup.deadlineSeconds | int64 }}
ttlSecondsAfterFinished: 604800
template:
  metadata:
    {{- include "watchkeeper.podMetadata" $part | nindent 4 }}
  spec:
    {{- include "watchkeeper.pod" $part | nindent 4 }}
    restartPolicy: Never
    automountServiceAccountToken: false
    serviceAccountName: {{ include "watchkeeper.fullname" $ }}-postgresql
    terminationGracePeriodSeconds: 5 # a run that is killed leaves nothing that looks complete
    containers:
      - name: {{ .command }}
        image: {{ include "watchkeeper.image" (dict "root" $ "component" "postgresql") }}
        imagePullPolicy: {{ $.Values.images.pullPolicy }}
        command: [{{ .command }}]
        env:
          - {name: PGHOST, value: {{ include "watchkeeper.fullname" $ }}-postgresql.{{ $.Release.Namespace }}.svc}
          {{- include "watchkeeper.libpqEnvironment" $client | nindent 10 }}
          - {name: POSTGRESQL_PASSWORD_FILE, value: /run/secrets/watchkeeper/database-password}
          # The database of an MLflow of your own is elsewhere.
          - {name: POSTGRESQL_DATABASES, value: {{ .root.Values.mlflow.enabled | ternary "mlflow ledger" "ledger" }}}
          - {name: KEEP, value: {{ $backup.keep | quote }}}
          {{- include "watchkeeper.extraEnv" $.Values.postgresql.extraEnv | nindent 10 }}
        terminationMessagePolicy: FallbackToLogsOnError
        resources: {{- toYaml $backup.resources | nindent 10 }}
        securityContext: {{- include "watchkeeper.containerSecurity" $ | nindent 10 }}
        volumeMounts:
          - {name: backups, mountPath: /backups}
          - {name: tmp, mountPath: /tmp}
          - {name: secrets, mountPath: /run/secrets/watchkeeper, readOnly: true}
          {{- include "watchkeeper.authoritiesMount" $client | nindent 10 }}
    volumes:
      - {name: backups, persistentVolumeClaim: {claimName: {{ include "watchkeeper.fullname" $ }}-backup}}
      - {name: tmp, emptyDir: {}}
      {{- include "watchkeeper.authorities" $client | nindent 6 }}
      - name: secrets
        secret:
          secretName: {{ include "watchkeeper.secret" $ }}
          items: [{key: database-password, path: database-password}]
{{- end }}
