{{- define "zue-operator.name" -}}
{{- $name := .Release.Name }}
{{- if not (contains .Chart.Name .Release.Name) }}{{ $name = printf "%s-%s" .Release.Name .Chart.Name }}{{ end }}
{{- .Values.fullnameOverride | default $name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- /* The NetworkPolicies of the clusters let in what bears the first of them: it is the same whatever the objects are called. */ -}}
{{- define "zue-operator.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "zue-operator.labels" -}}
{{- with .Values.labels }}{{ toYaml . }}
{{ end }}
{{- include "zue-operator.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: zue
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "zue-operator.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
