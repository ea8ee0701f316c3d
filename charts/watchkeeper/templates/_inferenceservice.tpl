{{/* The template of a model's InferenceServices: {root, name, model}. The rollout controller replaces
${...}. It never changes an InferenceService that exists, except its replicas: anything else would
restart the pods. */}}
{{- define "watchkeeper.inferenceService" -}}
{{- $root := .root -}}
{{- $model := .model -}}
{{- $serving := .root.Values.serving -}}
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
    storageContainerName: {{ include "watchkeeper.clusterName" $root }}
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
        {{- include "watchkeeper.extraEnv" $serving.extraEnv | nindent 8 }}
      {{- if include "watchkeeper.gatewaySecret" $root }}
      # KServe adds these to the mounts of the runtime.
      volumeMounts:
        - {name: gateway-tokens, mountPath: /run/secrets/gateway, readOnly: true}
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
          - {name: WATCHKEEPER_LEDGER_URL_FILE, value: /run/secrets/watchkeeper/ledger-url}
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
          - {name: sidecar-token, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
    volumes:
      {{- with include "watchkeeper.gatewaySecret" $root }}
      - {name: gateway-tokens, secret: {secretName: {{ . }}}}
      {{- end }}
      - {name: sidecar-tmp, emptyDir: {}}
      - name: sidecar-secrets
        secret: {{- include "watchkeeper.ledgerWriter" . | nindent 10 }}
      - name: sidecar-token # mounted in the sidecar only
        projected:
          sources:
            - serviceAccountToken: {path: token, expirationSeconds: 3600}
            - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
            - downwardAPI: {items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]}
{{- end }}
