{{- /* Names, labels and the settings of the gateway as environment variables. */ -}}

{{- define "segment-gateway.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "segment-gateway.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains (include "segment-gateway.name" .) .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "segment-gateway.name" .) | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "segment-gateway.selectorLabels" -}}
app.kubernetes.io/name: {{ include "segment-gateway.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "segment-gateway.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{ include "segment-gateway.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end -}}

{{- define "segment-gateway.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default .Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "segment-gateway.claim" -}}
{{- default (include "segment-gateway.fullname" .) .Values.persistence.existingClaim -}}
{{- end -}}

{{- define "segment-gateway.routesConfigMap" -}}
{{- if .Values.routes.inline -}}
{{- include "segment-gateway.fullname" . -}}-routes
{{- else -}}
{{- .Values.routes.configMap -}}
{{- end -}}
{{- end -}}

{{- define "segment-gateway.clientsConfigMap" -}}
{{- if .Values.clients.inline -}}
{{- include "segment-gateway.fullname" . -}}-clients
{{- else -}}
{{- .Values.clients.configMap -}}
{{- end -}}
{{- end -}}

{{- define "segment-gateway.tlsSecret" -}}
{{- if .Values.tls.secretName -}}
{{- .Values.tls.secretName -}}
{{- else if .Values.tls.certManager.enabled -}}
{{- include "segment-gateway.fullname" . -}}-tls
{{- end -}}
{{- end -}}

{{- /* Where a probe asks. The kubelet does not check the certificate. */ -}}
{{- define "segment-gateway.probePort" -}}
port: admin
{{- if .Values.tls.admin.secretName }}
scheme: HTTPS
{{- end }}
{{- end -}}

{{- /* A value of `config` as the program reads it from a variable: lists and tables with commas, numbers in full. */ -}}
{{- define "segment-gateway.setting" -}}
{{- if kindIs "slice" . -}}
{{- join "," . -}}
{{- else if kindIs "map" . -}}
{{- $entries := list -}}
{{- range $name, $value := . -}}
{{- $entries = append $entries (printf "%s=%s" $name $value) -}}
{{- end -}}
{{- join "," $entries -}}
{{- else if and (kindIs "float64" .) (eq (float64 (int64 .)) .) -}}
{{- int64 . -}}
{{- else -}}
{{- . -}}
{{- end -}}
{{- end -}}

{{- /* `config`, flattened: write.max_wait becomes SEGMENT_GATEWAY__WRITE__MAX_WAIT. Only `tls` is a section in a section; other maps are values. */ -}}
{{- define "segment-gateway.settings" -}}
{{- range $section, $keys := .Values.config }}
{{- range $key, $value := $keys }}
{{- if and (eq $key "tls") (kindIs "map" $value) }}
{{- range $inner, $setting := $value }}
SEGMENT_GATEWAY__{{ upper $section }}__{{ upper $key }}__{{ upper $inner }}: {{ include "segment-gateway.setting" $setting | quote }}
{{- end }}
{{- else }}
SEGMENT_GATEWAY__{{ upper $section }}__{{ upper $key }}: {{ include "segment-gateway.setting" $value | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}
