{{/* One controller per cluster: it owns the CRDs and a Lease. So its objects have one name, whatever the release is called. */}}
{{- define "sluice.name" -}}sluice-controller{{- end }}

{{- define "sluice.selector" -}}
app.kubernetes.io/name: {{ include "sluice.name" . }}
{{- end }}

{{- define "sluice.labels" -}}
{{ include "sluice.selector" . }}
app.kubernetes.io/part-of: sluice
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "sluice.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end }}

{{/* The file that `sluice controller --config` reads. */}}
{{- define "sluice.config" -}}
{{- with .Values.controller -}}
listen: {{ printf "%s:18080" .bindHost | quote }}
xds: {{ printf "%s:18000" .bindHost | quote }}
logLevel: {{ .logLevel }}
kube: true
{{- with .watchNamespace }}
kubeWatch: {{ . }}
{{- end }}
{{- if .token.secretName }}
tokenFile: /etc/sluice/token/{{ .token.key }}
{{- end }}
{{- if .resourcesConfigMap }}
resources: /etc/sluice/resources
{{- end }}
{{- with .policy }}
policy: {{ toJson . }}
{{- end }}
{{- with .metrics }}
metrics: {{ toJson . }}
{{- end }}
{{- end }}
{{- if .Values.injection.enabled }}
kubeInject: {{ dict "listen" (printf "%s:9443" .Values.controller.bindHost) "sidecar" (include "sluice.sidecar" . | fromJson) | toJson }}
{{- end }}
{{- end }}

{{/* Settings of the sidecar's template; where agents find the controller is known here. */}}
{{- define "sluice.sidecar" -}}
{{- $host := printf "%s.%s" (include "sluice.name" .) .Release.Namespace }}
{{- $controller := printf "http://%s:%d" $host (int .Values.service.apiPort) }}
{{- $known := dict "controllers" (list $controller) "xds" (printf "%s:%d" $host (int .Values.service.xdsPort)) }}
{{- merge (deepCopy .Values.injection.sidecar) $known | toJson }}
{{- end }}
