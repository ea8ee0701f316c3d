{{/* TLS of the servers `mlflow` and `database`, and of the `servers` of all versions. A client is described by {root, servers, training,
running}: the servers that it calls, whether it is in the training namespace, and whether it runs before an
upgrade changes the embedded PostgreSQL. */}}

{{/* The Secret with the certificate of an embedded server: {root, server}. Empty without TLS, and for a
server outside of the release. */}}
{{- define "watchkeeper.certificate" -}}
{{- $component := eq .server "database" | ternary "postgresql" .server -}}
{{- if or (eq .server "servers") (index .root.Values $component).enabled -}}
{{- $issued := printf "%s-%s-tls" (include "watchkeeper.fullname" .root) $component -}}
{{- $isIssued := and .root.Values.tls.issuer.name (or (ne .server "servers") .root.Values.tls.servers) -}}
{{- index .root.Values.tls.secrets .server | default (empty $isIssued | ternary "" $issued) -}}
{{- end -}}
{{- end }}

{{/* The Secret whose ca.crt is the authority of a server: {root, server, training, running}. Empty if its
clients check no certificate. */}}
{{- define "watchkeeper.authority" -}}
{{- $configured := index .root.Values.tls.secrets .server | default (include "watchkeeper.certificate" .) -}}
{{- $issued := and $configured (not (index .root.Values.tls.secrets .server)) -}}
{{- $database := dict -}}
{{- if and .running .root.Release.IsUpgrade (eq .server "database") .root.Values.postgresql.enabled -}}
{{- $database = lookup "apps/v1" "StatefulSet" .root.Release.Namespace (printf "%s-postgresql" (include "watchkeeper.fullname" .root)) -}}
{{- end -}}
{{- if $database -}}
{{- range $database.spec.template.spec.volumes }}{{ if eq .name "certificate" }}{{ .secret.secretName }}{{ end }}{{ end -}}
{{- else if and $issued .training (ne (include "watchkeeper.trainingNamespace" .root) .root.Release.Namespace) -}}
{{ include "watchkeeper.fullname" .root }}-training-tls
{{- else -}}
{{ $configured }}
{{- end -}}
{{- end }}

{{/* The authorities of a client as a list of one volume, or nothing. Its files are mlflow.crt and
database.crt. The client reads them for each connection, so they may be replaced. */}}
{{- define "watchkeeper.authorities" -}}
{{- $client := . }}
{{- $sources := list }}
{{- range $server := .servers }}
{{- with include "watchkeeper.authority" (merge (dict "server" $server) $client) }}
{{- $items := list (dict "key" "ca.crt" "path" (printf "%s.crt" $server)) }}
{{- $sources = append $sources (dict "secret" (dict "name" . "items" $items)) }}
{{- end }}
{{- end }}
{{- with $sources -}}
- name: authorities
  projected:
    defaultMode: 420
    sources: {{- toYaml . | nindent 6 }}
{{- end }}
{{- end }}

{{- define "watchkeeper.authoritiesMount" -}}
{{- if include "watchkeeper.authorities" . -}}
- {name: authorities, mountPath: /run/authorities, readOnly: true}
{{- end }}
{{- end }}

{{/* The environment of a client of the ledger */}}
{{- define "watchkeeper.ledgerEnvironment" -}}
{{- if include "watchkeeper.authority" (merge (dict "server" "database") .) -}}
- {name: WATCHKEEPER_LEDGER_CA, value: /run/authorities/database.crt}
{{- end }}
{{- end }}

{{/* The environment of programs that connect to PostgreSQL only, by its own library */}}
{{- define "watchkeeper.libpqEnvironment" -}}
{{- if include "watchkeeper.authority" (merge (dict "server" "database") .) -}}
- {name: PGSSLMODE, value: verify-full}
- {name: PGSSLROOTCERT, value: /run/authorities/database.crt}
{{- end }}
{{- end }}

{{/* The certificate of an embedded server as a list of one volume, or nothing: {root, server}. PostgreSQL
refuses a key that everybody can read. */}}
{{- define "watchkeeper.certificateVolume" -}}
{{- with include "watchkeeper.certificate" . -}}
- name: certificate
  secret:
    secretName: {{ . }}
    defaultMode: 0440
    items: [{key: tls.crt, path: tls.crt}, {key: tls.key, path: tls.key}]
{{- end }}
{{- end }}

{{- define "watchkeeper.certificateMount" -}}
{{- if include "watchkeeper.certificate" . -}}
- {name: certificate, mountPath: /run/certificate, readOnly: true}
{{- end }}
{{- end }}

{{/* The host in the certificate of the servers of all versions. Nothing has this address: it is what the
gateway asks for, and compares. */}}
{{- define "watchkeeper.serversHost" -}}
{{ include "watchkeeper.fullname" . }}-servers.{{ .Release.Namespace }}.svc
{{- end }}
