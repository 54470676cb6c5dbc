{{- /* Refuses values that contradict each other. All problems are reported at once. */ -}}

{{- /* Keys of the gateway that other values of the chart decide. */ -}}
{{- define "segment-gateway.ownKeys" -}}
admin.listen: the chart sets it
admin.public: the chart sets it, for probes and Prometheus
admin.open: use the token of secrets.adminToken
admin.token_file: use secrets.adminToken
upstream.url: use upstream.url, outside of config
upstream.ca_file: use upstream.ca.configMap
admin.tls.certificate_file: use tls.admin.secretName
admin.tls.key_file: use tls.admin.secretName
admin.tls.client_auth: the kubelet has no certificate for its probes
admin.tls.client_ca_file: the kubelet has no certificate for its probes
tls.certificate_file: use tls.secretName
tls.key_file: use tls.secretName
tls.client_ca_file: use tls.clientCA.configMap
callers.clients_file: use clients.inline or clients.configMap
routes.file: use routes.inline or routes.configMap
state.directory: use persistence
journal.key_file: use secrets.journalKey
credentials.key_file: use secrets.credentialKey
shutdown.drain: use drainSeconds
{{- end -}}

{{- define "segment-gateway.validate" -}}
{{- $values := .Values -}}
{{- $problems := list -}}
{{- if gt (int $values.replicas) 1 -}}
{{- $problems = append $problems (printf "replicas is %d: two gateways do not share budgets, and one process owns the state on the volume. Use 1. For other tokens install a second release" (int $values.replicas)) -}}
{{- end -}}
{{- if and $values.routes.inline $values.routes.configMap -}}
{{- $problems = append $problems "routes.inline and routes.configMap are both set: the gateway reads one route table. Remove one of them" -}}
{{- end -}}
{{- if and (not $values.persistence.enabled) $values.persistence.existingClaim -}}
{{- $problems = append $problems "persistence.existingClaim is set, but persistence.enabled is false: enable it, or remove the claim" -}}
{{- end -}}
{{- $upstream := default dict $values.config.upstream -}}
{{- if and (hasPrefix "http://" $values.upstream.url) (not $values.sandbox) (not $upstream.allow_plain_http) -}}
{{- $problems = append $problems "upstream.url is http://, so the network would see the callers' tokens: use https://, or set config.upstream.allow_plain_http to true" -}}
{{- end -}}
{{- if and $values.sandbox (ne $values.upstream.url "https://api.segmentapis.com") -}}
{{- $problems = append $problems "sandbox is true, but upstream.url names an API: the sandbox would be used instead. Remove one of them" -}}
{{- end -}}
{{- $problems = concat $problems (fromJsonArray (include "segment-gateway.validateNetwork" .)) -}}
{{- $problems = concat $problems (fromJsonArray (include "segment-gateway.validateAccess" .)) -}}
{{- range $key, $instead := fromYaml (include "segment-gateway.ownKeys" .) -}}
{{- $path := splitList "." $key -}}
{{- $section := $values.config -}}
{{- range initial $path -}}
{{- $section = default dict (get $section .) -}}
{{- end -}}
{{- if hasKey $section (last $path) -}}
{{- $problems = append $problems (printf "config.%s: %s" $key $instead) -}}
{{- end -}}
{{- end -}}
{{- range $values.extraEnv -}}
{{- if hasPrefix "SEGMENT_GATEWAY_" .name -}}
{{- $problems = append $problems (printf "extraEnv has %s: use config for keys of the gateway, and secrets for its secrets" .name) -}}
{{- end -}}
{{- end -}}
{{- if $problems -}}
{{- fail (printf "\n\nThese values cannot be used:\n- %s\n" (join "\n- " $problems)) -}}
{{- end -}}
{{- end -}}

{{- /* Problems of ingress, network policy and monitor, as a JSON list. */ -}}
{{- define "segment-gateway.validateNetwork" -}}
{{- $values := .Values -}}
{{- $problems := list -}}
{{- if $values.ingress.enabled -}}
{{- if not $values.ingress.tls.secretName -}}
{{- $problems = append $problems "ingress.enabled without ingress.tls.secretName: callers send their tokens, so name the Secret with the certificate" -}}
{{- end -}}
{{- if not $values.ingress.host -}}
{{- $problems = append $problems "ingress.enabled without ingress.host: name the host that callers use" -}}
{{- end -}}
{{- if not (default dict $values.config.wait).caller_timeout -}}
{{- $problems = append $problems "ingress.enabled without config.wait.caller_timeout: writes may be queued for longer than the controller waits. Set it to the controller's timeout, such as 60s" -}}
{{- end -}}
{{- if and $values.networkPolicy.enabled (not $values.networkPolicy.ingressController) -}}
{{- $problems = append $problems "ingress.enabled, but the network policy keeps its controller out: name its pods in networkPolicy.ingressController, or set networkPolicy.enabled to false" -}}
{{- end -}}
{{- else if or $values.ingress.host $values.ingress.tls.secretName -}}
{{- $problems = append $problems "ingress.host or ingress.tls.secretName is set, but ingress.enabled is false: enable it, or remove them" -}}
{{- end -}}
{{- if and $values.serviceMonitor.enabled $values.networkPolicy.enabled (not $values.networkPolicy.scrapers) -}}
{{- $problems = append $problems "serviceMonitor.enabled, but the network policy keeps Prometheus out: name its pods in networkPolicy.scrapers" -}}
{{- end -}}
{{- toJson $problems -}}
{{- end -}}

{{- /* Problems of clients, held tokens and certificates, as a JSON list. */ -}}
{{- define "segment-gateway.validateAccess" -}}
{{- $values := .Values -}}
{{- $problems := list -}}
{{- $file := include "segment-gateway.clientsConfigMap" . -}}
{{- $credentials := default "own" (default dict $values.config.callers).credentials -}}
{{- if and $values.clients.inline $values.clients.configMap -}}
{{- $problems = append $problems "clients.inline and clients.configMap are both set: the gateway reads one file of clients. Remove one of them" -}}
{{- end -}}
{{- if and $file (eq $credentials "own") -}}
{{- $problems = append $problems "clients has a file, but config.callers.credentials is \"own\": nobody would have a key. Set it to \"both\" or \"managed\"" -}}
{{- end -}}
{{- if and (not $file) (ne $credentials "own") -}}
{{- $problems = append $problems (printf "config.callers.credentials is %q without a file of clients: set clients.inline or clients.configMap" $credentials) -}}
{{- end -}}
{{- if and $values.tokens (not $file) -}}
{{- $problems = append $problems "tokens without a file of clients: nobody would use them. Set clients.inline or clients.configMap" -}}
{{- end -}}
{{- $auth := default "none" (default dict $values.config.tls).client_auth -}}
{{- if and $values.tls.clientCA.configMap (eq $auth "none") -}}
{{- $problems = append $problems "tls.clientCA.configMap is set, but config.tls.client_auth is \"none\": set it to \"required\" or \"optional\"" -}}
{{- end -}}
{{- if and (not $values.tls.clientCA.configMap) (ne $auth "none") -}}
{{- $problems = append $problems (printf "config.tls.client_auth is %q without authorities: name their ConfigMap in tls.clientCA.configMap" $auth) -}}
{{- end -}}
{{- if and (ne $auth "none") (not (include "segment-gateway.tlsSecret" .)) -}}
{{- $problems = append $problems "config.tls.client_auth without a certificate of the gateway: set tls.secretName or tls.certManager.enabled" -}}
{{- end -}}
{{- if and $values.tls.certManager.enabled (not $values.tls.certManager.issuer.name) -}}
{{- $problems = append $problems "tls.certManager.enabled without tls.certManager.issuer.name: name the issuer of the certificate" -}}
{{- end -}}
{{- if and $values.tls.admin.secretName $values.serviceMonitor.enabled (not $values.serviceMonitor.tlsConfig) -}}
{{- $problems = append $problems "tls.admin.secretName with serviceMonitor.enabled: say in serviceMonitor.tlsConfig how Prometheus trusts the certificate" -}}
{{- end -}}
{{- toJson $problems -}}
{{- end -}}
