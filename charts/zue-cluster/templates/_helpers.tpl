{{- /* The name becomes part of Service and pod names: it is refused when it is too long, never cut. */ -}}
{{- define "zue-cluster.name" -}}
{{- .Values.fullnameOverride | default .Release.Name }}
{{- end }}

{{- define "zue-cluster.labels" -}}
{{- with .Values.labels }}{{ toYaml . }}
{{ end }}
{{- /* Not app.kubernetes.io/name and instance: they are those of the pods. */ -}}
app.kubernetes.io/part-of: zue
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- end }}

{{- /* The values that are the spec; what is empty is left to the ZueCluster's own defaults. */ -}}
{{- define "zue-cluster.spec" -}}
{{- $spec := dict }}
{{- range $name, $value := omit .Values "global" "fullnameOverride" "labels" "annotations" "helmTest" }}
{{- if $value }}{{ $_ := set $spec $name $value }}{{ end }}
{{- end }}
{{- toYaml $spec }}
{{- end }}
