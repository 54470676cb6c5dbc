{{- /* The state, and the files that settings name. Each mount has its volume. */ -}}

{{- define "segment-gateway.mounts" -}}
{{- if .Values.persistence.enabled }}
- name: state
  mountPath: /var/lib/segment-gateway
{{- end }}
{{- if include "segment-gateway.routesConfigMap" . }}
- name: routes
  mountPath: /etc/segment-gateway/routes
  readOnly: true
{{- end }}
{{- if .Values.upstream.ca.configMap }}
- name: ca
  mountPath: /etc/segment-gateway/ca
  readOnly: true
{{- end }}
{{- if .Values.secrets.credentialKey.name }}
- name: credentials
  mountPath: /etc/segment-gateway/credentials
  readOnly: true
{{- end }}
{{- end -}}

{{- define "segment-gateway.volumes" -}}
{{- if .Values.persistence.enabled }}
- name: state
  persistentVolumeClaim:
    claimName: {{ include "segment-gateway.claim" . }}
{{- end }}
{{- with include "segment-gateway.routesConfigMap" . }}
- name: routes
  configMap:
    name: {{ . }}
    items:
      - key: {{ $.Values.routes.key }}
        path: segment.toml
{{- end }}
{{- with .Values.upstream.ca }}
{{- if .configMap }}
- name: ca
  configMap:
    name: {{ .configMap }}
    items:
      - key: {{ .key }}
        path: ca.crt
{{- end }}
{{- end }}
{{- with .Values.secrets.credentialKey }}
{{- if .name }}
- name: credentials
  secret:
    secretName: {{ .name }}
    # Not readable for every user.
    defaultMode: 0440
    items:
      - key: {{ .key }}
        path: key
{{- end }}
{{- end }}
{{- end -}}
