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
state: ":memory:"
{{- if .token.secretName }}
tokenFile: /etc/sluice/token/{{ .token.key }}
{{- end }}
{{- if .resourcesConfigMap }}
resources: /etc/sluice/resources
{{- end }}
{{- with .policy }}
policy: {{ toJson . }}
{{- end }}
{{- end }}
{{- end }}
