{{/*
The spec of a model's training Jobs: {root, name, model}. It is the template of the CronJob, and the
admission policy compares the Jobs of sidecars with it. The policy sees a Job after the API server has
filled in its defaults, so all of these fields are given here.
*/}}
{{- define "watchkeeper.trainingJob" -}}
{{- $ := .root }}
{{- $part := dict "root" $ "component" "training" "model" .name "values" $.Values.training }}
{{- $client := dict "root" $ "servers" (list "mlflow" "database") "training" true -}}
parallelism: 1
completions: 1
completionMode: NonIndexed
suspend: false
backoffLimit: {{ $.Values.training.backoffLimit }}
activeDeadlineSeconds: {{ $.Values.training.deadlineSeconds | int64 }}
ttlSecondsAfterFinished: {{ $.Values.training.keepSeconds | int64 }}
# Exit code 2: the data or the settings do not allow a training run, so a retry would not help.
podFailurePolicy:
  rules:
    - {action: FailJob, onExitCodes: {containerName: training, operator: In, values: [2]}}
    - {action: Ignore, onPodConditions: [{type: DisruptionTarget, status: "True"}]}
template:
  metadata:
    {{- include "watchkeeper.podMetadata" $part | nindent 4 }}
  spec:
    {{- include "watchkeeper.pod" $part | nindent 4 }}
    restartPolicy: Never
    dnsPolicy: ClusterFirst
    schedulerName: default-scheduler
    terminationGracePeriodSeconds: 30
    # Otherwise the run has PID 1, for which the kernel ignores SIGTERM until Python handles it.
    shareProcessNamespace: true
    serviceAccountName: {{ .name }}-training
    automountServiceAccountToken: false
    containers:
      - name: training
        image: {{ include "watchkeeper.modelImage" (dict "root" $ "component" "training" "model" .model) }}
        imagePullPolicy: {{ $.Values.images.pullPolicy }}
        command: [python, -m, watchkeeper.training]
        args: [{{ .name }}, --run, $(WATCHKEEPER_RUN), --trigger, schedule]
        env:
          - name: WATCHKEEPER_RUN
            valueFrom:
              fieldRef: {apiVersion: v1, fieldPath: "metadata.labels['batch.kubernetes.io/job-name']"}
          {{- include "watchkeeper.registryEnvironment" (dict "root" $ "user" "training") | nindent 10 }}
          - {name: WATCHKEEPER_CODE_VERSION, value: {{ .model.training.image | default (include "watchkeeper.codeVersion" $) | quote }}}
          - {name: WATCHKEEPER_LEDGER_URL_FILE, value: /run/secrets/watchkeeper/ledger-url}
          {{- include "watchkeeper.ledgerEnvironment" $client | nindent 10 }}
          - {name: WATCHKEEPER_SOURCE_URL_FILE, value: /run/secrets/source/url}
          {{- include "watchkeeper.snapshotsEnvironment" $ | nindent 10 }}
          {{- include "watchkeeper.extraEnv" $.Values.training.extraEnv | nindent 10 }}
        terminationMessagePath: /dev/termination-log
        terminationMessagePolicy: FallbackToLogsOnError
        resources: {{- toYaml .model.trainingResources | nindent 10 }}
        securityContext: {{- include "watchkeeper.containerSecurity" $ | nindent 10 }}
        volumeMounts:
          - {name: tmp, mountPath: /tmp}
          - {name: secrets, mountPath: /run/secrets/watchkeeper, readOnly: true}
          - {name: source, mountPath: /run/secrets/source, readOnly: true}
          {{- include "watchkeeper.snapshotsMount" $ | nindent 10 }}
          {{- include "watchkeeper.authoritiesMount" $client | nindent 10 }}
    volumes:
      - {name: tmp, emptyDir: {}}
      {{- include "watchkeeper.authorities" $client | nindent 6 }}
      - name: secrets
        secret:
          secretName: {{ include "watchkeeper.trainingSecret" $ }}
          defaultMode: 420
          items: {{- include "watchkeeper.clientSecrets" (dict "root" $ "user" "training") | nindent 12 }}
      - name: source
        secret:
          secretName: {{ .model.source.secretName | default (printf "%s-source" .name) }}
          defaultMode: 420
          items: [{key: {{ .model.source.key }}, path: url}]
      {{- include "watchkeeper.snapshotsVolume" (dict "root" $ "optional" false) | nindent 6 }}
{{- end }}

{{/* A value as a CEL literal. The members of a CEL list or map have one type, so each is dyn(). */}}
{{- define "watchkeeper.cel" -}}
{{- $members := list -}}
{{- if kindIs "map" . -}}
{{- range $key, $value := . -}}
{{- $members = append $members (printf "%s: %s" (toJson $key) (include "watchkeeper.cel" $value)) -}}
{{- end -}}
{{- printf "dyn({%s})" (join ", " $members) -}}
{{- else if kindIs "slice" . -}}
{{- range . -}}
{{- $members = append $members (include "watchkeeper.cel" .) -}}
{{- end -}}
{{- printf "dyn([%s])" (join ", " $members) -}}
{{- else -}}
{{- printf "dyn(%s)" (toJson .) -}}
{{- end -}}
{{- end }}
