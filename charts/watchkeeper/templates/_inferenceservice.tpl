{{/* The template of a model's InferenceServices: {root, name, model}. The rollout controller replaces
${...}. It never changes an InferenceService that exists, except its replicas: anything else would
restart the pods. */}}
{{- define "watchkeeper.inferenceService" -}}
{{- $root := .root -}}
{{- $model := .model -}}
{{- $serving := .root.Values.serving -}}
{{- $authority := include "watchkeeper.authority" (dict "root" .root "server" "database") -}}
{{- $certificate := dict "root" .root "server" "servers" -}}
metadata:
  labels:
    app.kubernetes.io/name: {{ include "watchkeeper.name" $root }}
    app.kubernetes.io/instance: {{ $root.Release.Name }}
    app.kubernetes.io/component: server
  {{- if not $model.autoscaling.enabled }}
  annotations:
    serving.kserve.io/autoscalerClass: none
  {{- end }}
spec:
  predictor:
    {{- with $serving.podAnnotations }}
    annotations: {{- toYaml . | nindent 6 }}
    {{- end }}
    minReplicas: {{ $model.replicas }}
    maxReplicas: {{ $model.autoscaling.enabled | ternary (max $model.replicas $model.autoscaling.maxReplicas) $model.replicas }}
    {{- if $model.autoscaling.enabled }}
    scaleMetric: cpu
    scaleTarget: {{ $model.autoscaling.targetCPUUtilizationPercentage }}
    {{- end }}
    storageContainerName: {{ include "watchkeeper.storageContainerName" $root }}
    serviceAccountName: {{ .name }}-serving
    automountServiceAccountToken: false
    {{- include "watchkeeper.pod" (dict "root" $root "values" $serving) | nindent 4 }}
    # The server drains and stops, then the sidecar ships the last records.
    terminationGracePeriodSeconds: {{ add $serving.drainSeconds $serving.stopSeconds $serving.shipSeconds 10 }}
    topologySpreadConstraints:
      - maxSkew: 1
        topologyKey: kubernetes.io/hostname
        whenUnsatisfiable: ScheduleAnyway
        labelSelector:
          matchLabels: {watchkeeper/model: "${MODEL}", watchkeeper/version: "${VERSION}"}
    model:
      modelFormat: {name: watchkeeper, version: "1"}
      protocolVersion: v2
      runtime: {{ include "watchkeeper.fullname" $root }}
      image: {{ include "watchkeeper.modelImage" (dict "root" $root "component" "serving" "model" $model) }}
      imagePullPolicy: {{ $root.Values.images.pullPolicy }}
      resources: {{- toYaml $model.resources | nindent 8 }}
      env:
        - {name: WATCHKEEPER_MODEL, value: "${MODEL}"}
        - {name: WATCHKEEPER_VERSION, value: "${VERSION}"}
        - {name: WATCHKEEPER_MODEL_FOLDER, value: /mnt/models}
        - {name: WATCHKEEPER_SPOOL, value: /spool}
        - {name: WATCHKEEPER_HOST, value: 0.0.0.0}
        - {name: WATCHKEEPER_SPOOL_BYTES, value: {{ $serving.spoolBytes | int64 | quote }}}
        - {name: WATCHKEEPER_QUEUE_SECONDS, value: {{ $serving.queueSeconds | quote }}}
        - {name: WATCHKEEPER_DRAIN_SECONDS, value: {{ $serving.drainSeconds | quote }}}
        - {name: WATCHKEEPER_STOP_SECONDS, value: {{ $serving.stopSeconds | quote }}}
        - {name: WATCHKEEPER_SIGNING_KEY_FILE, value: /run/secrets/watchkeeper/signing-key}
        - {name: WATCHKEEPER_FEEDBACK_TOKEN_FILE, value: /run/secrets/watchkeeper/feedback-token}
        - {name: WATCHKEEPER_SYNTHETIC_CLIENTS, value: {{ $model.syntheticClients | toJson | quote }}}
        - {name: WATCHKEEPER_ANSWER_POLICY, value: {{ $model.policies.answer | toJson | quote }}}
        {{- if include "watchkeeper.gatewaySecret" $root }}
        - {name: WATCHKEEPER_GATEWAY_TOKENS, value: /run/secrets/gateway}
        {{- end }}
        {{- if include "watchkeeper.certificate" $certificate }}
        - {name: WATCHKEEPER_CERTIFICATE, value: /run/certificate}
        {{- end }}
        {{- include "watchkeeper.extraEnv" $serving.extraEnv | nindent 8 }}
      # KServe adds these to the mounts of the runtime.
      {{- if or (include "watchkeeper.gatewaySecret" $root) (include "watchkeeper.certificate" $certificate) }}
      volumeMounts:
        {{- if include "watchkeeper.gatewaySecret" $root }}
        - {name: gateway-tokens, mountPath: /run/secrets/gateway, readOnly: true}
        {{- end }}
        {{- include "watchkeeper.certificateMount" $certificate | nindent 8 }}
      {{- end }}
      {{- if include "watchkeeper.certificate" $certificate }}
      # By the first port with TLS the rollout controller knows that the gateway must use it. KServe would put
      # ports that the runtime lacks before its own, and the first one becomes port 80 of the Service.
      ports:
        - {name: http, containerPort: 8080, protocol: TCP}
        - {name: grpc-h2c, containerPort: 9000, protocol: TCP}
        - {name: metrics, containerPort: 8082, protocol: TCP}
        - {name: https, containerPort: 8443, protocol: TCP}
        - {name: grpc-h2c-tls, containerPort: 9443, protocol: TCP}
      {{- end }}
    initContainers:
      # A native sidecar ends after the server. It has no readiness probe: a ledger that is down must
      # not take the server out of traffic. It has no startup probe: KServe fetches the files of the
      # version after the sidecar has started.
      - name: drift
        image: {{ include "watchkeeper.image" (dict "root" $root "component" "drift") }}
        imagePullPolicy: {{ $root.Values.images.pullPolicy }}
        command: [python, -m, watchkeeper.drift]
        restartPolicy: Always
        env:
          - {name: WATCHKEEPER_MODEL, value: "${MODEL}"}
          - {name: WATCHKEEPER_VERSION, value: "${VERSION}"}
          - {name: WATCHKEEPER_MODEL_FOLDER, value: /mnt/models}
          - {name: WATCHKEEPER_SPOOL, value: /spool}
          - {name: WATCHKEEPER_HOST, value: 0.0.0.0}
          - {name: WATCHKEEPER_PORT, value: "9090"}
          - {name: WATCHKEEPER_PLATFORM, value: {{ include "watchkeeper.platform" $root | quote }}}
          {{- include "watchkeeper.podEnvironment" . | nindent 10 }}
          - {name: WATCHKEEPER_LEDGER_URL_FILE, value: /run/secrets/watchkeeper/ledger-url}
          {{- include "watchkeeper.ledgerEnvironment" (dict "root" $root) | nindent 10 }}
          - {name: WATCHKEEPER_DRAIN_SECONDS, value: {{ $serving.shipSeconds | quote }}}
          - {name: WATCHKEEPER_DRIFT_POLICY, value: {{ $model.policies.drift | toJson | quote }}}
          - {name: WATCHKEEPER_RETENTION, value: {{ $model.policies.retention | toJson | quote }}}
          {{- include "watchkeeper.extraEnv" $serving.sidecarExtraEnv | nindent 10 }}
        ports:
          - {name: drift-metrics, containerPort: 9090, protocol: TCP}
        livenessProbe:
          httpGet: {path: /healthz, port: 9090}
          initialDelaySeconds: 20
          periodSeconds: 20
          timeoutSeconds: 5
          failureThreshold: 6
        resources: {{- toYaml $model.sidecarResources | nindent 10 }}
        securityContext: {{- include "watchkeeper.containerSecurity" $root | nindent 10 }}
        volumeMounts:
          - {name: spool, mountPath: /spool}
          - {name: kserve-provision-location, mountPath: /mnt/models, readOnly: true}
          - {name: sidecar-tmp, mountPath: /tmp}
          - {name: sidecar-secrets, mountPath: /run/secrets/watchkeeper, readOnly: true}
          {{- if $authority }}
          - {name: sidecar-authorities, mountPath: /run/authorities, readOnly: true}
          {{- end }}
          - {name: sidecar-token, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
    volumes:
      {{- with include "watchkeeper.gatewaySecret" $root }}
      - {name: gateway-tokens, secret: {secretName: {{ . }}}}
      {{- end }}
      {{- include "watchkeeper.certificateVolume" $certificate | nindent 6 }}
      - name: registry-secrets # mounted in the container that fetches the files
        secret:
          secretName: {{ include "watchkeeper.secret" $root }}
          optional: {{ not $root.Values.mlflow.auth.enabled }} # the volume exists also if a login is required later
          items: [{key: {{ include "watchkeeper.mlflowKey" (dict "root" $root "user" "serving") }}, path: mlflow-password}]
      - {name: sidecar-tmp, emptyDir: {}}
      - name: sidecar-secrets
        secret:
          {{- $writers := include "watchkeeper.ledgerWriters" $root | fromYaml }}
          secretName: {{ $writers.secret }}
          items: [{key: {{ get $writers.own .name | default $writers.shared }}, path: ledger-url}]
      {{- with $authority }}
      - {name: sidecar-authorities, secret: {secretName: {{ . }}, items: [{key: ca.crt, path: database.crt}]}}
      {{- end }}
      - name: sidecar-token # mounted in the sidecar only
        projected:
          sources:
            - serviceAccountToken: {path: token, expirationSeconds: 3600}
            - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
            - downwardAPI: {items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]}
{{- end }}

{{/* The name of the container that fetches the files of a version. It has no other form in later releases:
the InferenceServices of versions that serve name it. */}}
{{- define "watchkeeper.storageContainerName" -}}
{{ include "watchkeeper.clusterName" . }}.files
{{- end }}

{{/* That container: {root, name, file}. KServe adds it to the pods of an InferenceService, so it can mount
volumes of the InferenceService; with `file` the password is in one of them. It outlives the release, as
the servers do: without it, a pod that is lost cannot be replaced. */}}
{{- define "watchkeeper.storageContainer" -}}
{{- $caller := dict "root" .root "user" "serving" -}}
{{- $login := .root.Values.mlflow.auth.enabled -}}
apiVersion: serving.kserve.io/v1alpha1
kind: ClusterStorageContainer
metadata:
  name: {{ .name }}
  labels: {{- include "watchkeeper.labels" (dict "root" .root) | nindent 4 }}
  annotations:
    helm.sh/resource-policy: keep
spec:
  supportedUriFormats:
    - {prefix: "mlflow://"}
  workloadType: initContainer
  supportsMultiModelDownload: false
  container:
    name: storage-initializer
    image: {{ include "watchkeeper.image" (dict "root" .root "component" "serving") }}
    imagePullPolicy: {{ .root.Values.images.pullPolicy }}
    command: [python, -m, watchkeeper.serving.initialize]
    env:
      {{- if .file }}
      {{- include "watchkeeper.registryEnvironment" $caller | nindent 6 }}
      {{- else }}
      {{- include "watchkeeper.registryAddress" $caller | nindent 6 }}
      {{- if $login }}
      - name: MLFLOW_TRACKING_PASSWORD
        valueFrom: {secretKeyRef: {name: {{ include "watchkeeper.secret" .root }}, key: {{ include "watchkeeper.mlflowKey" $caller }}}}
      {{- end }}
      {{- end }}
      - {name: WATCHKEEPER_INITIALIZE_SECONDS, value: {{ .root.Values.serving.initializeSeconds | quote }}}
      {{- include "watchkeeper.extraEnv" .root.Values.serving.extraEnv | nindent 6 }}
    # `watchkeeper status` shows the last line of its log as the reason.
    terminationMessagePolicy: FallbackToLogsOnError
    resources:
      requests: {cpu: 10m, memory: 128Mi}
      limits: {memory: 1Gi}
    securityContext: {{- include "watchkeeper.containerSecurity" .root | nindent 6 }}
    volumeMounts:
      - {name: tmp, mountPath: /tmp}
      {{- if and .file $login }}
      - {name: registry-secrets, mountPath: /run/secrets/watchkeeper, readOnly: true}
      {{- end }}
      {{- include "watchkeeper.authoritiesMount" (dict "root" .root "servers" (list "mlflow")) | nindent 6 }}
{{- end }}
