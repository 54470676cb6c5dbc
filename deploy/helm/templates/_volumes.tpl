{{- /* The state, and the files that settings name. Each mount has its volume, and none a subPath: those files would
       stay as they were at the start. */ -}}

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
{{- if include "segment-gateway.clientsConfigMap" . }}
- name: clients
  mountPath: /etc/segment-gateway/clients
  readOnly: true
{{- end }}
{{- if .Values.tokens }}
- name: tokens
  mountPath: /run/secrets/segment
  readOnly: true
{{- end }}
{{- if include "segment-gateway.tlsSecret" . }}
- name: tls
  mountPath: /etc/segment-gateway/tls
  readOnly: true
{{- end }}
{{- if .Values.tls.clientCA.configMap }}
- name: client-ca
  mountPath: /etc/segment-gateway/client-ca
  readOnly: true
{{- end }}
{{- if .Values.tls.admin.secretName }}
- name: admin-tls
  mountPath: /etc/segment-gateway/admin-tls
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
{{- with include "segment-gateway.clientsConfigMap" . }}
- name: clients
  configMap:
    name: {{ . }}
    items:
      - key: {{ $.Values.clients.key }}
        path: clients.toml
{{- end }}
{{- if .Values.tokens }}
- name: tokens
  projected:
    # Not readable for every user.
    defaultMode: 0440
    sources:
      {{- range $name, $token := .Values.tokens }}
      - secret:
          name: {{ $token.secretName }}
          items:
            - key: {{ $token.key }}
              path: {{ $name }}/token
      {{- end }}
{{- end }}
{{- with include "segment-gateway.tlsSecret" . }}
- name: tls
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- with .Values.tls.clientCA }}
{{- if .configMap }}
- name: client-ca
  configMap:
    name: {{ .configMap }}
    items:
      - key: {{ .key }}
        path: ca.crt
{{- end }}
{{- end }}
{{- with .Values.tls.admin.secretName }}
- name: admin-tls
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- end -}}
