{{/* A Role and its RoleBinding: {root, role, account, suffix, namespace} */}}
{{- define "watchkeeper.role" }}
{{- $name := printf "%s-%s-%s%s" (include "watchkeeper.fullname" .root) .role.kind .role.namespace .suffix }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ $name }}
  namespace: {{ .namespace }}
  labels: {{- include "watchkeeper.labels" (dict "root" .root) | nindent 4 }}
rules: {{- toYaml .role.rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ $name }}
  namespace: {{ .namespace }}
  labels: {{- include "watchkeeper.labels" (dict "root" .root) | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ $name }}
subjects:
  - {kind: ServiceAccount, name: {{ .account }}, namespace: {{ .root.Release.Namespace }}}
{{- end }}
