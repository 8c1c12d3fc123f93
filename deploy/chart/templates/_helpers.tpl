{{/* What selects the controller's Pods. It can never change. */}}
{{- define "konductor.selector" -}}
app.kubernetes.io/name: konductor-lease
app.kubernetes.io/component: controller
{{- end }}

{{/* What Helm says of every object. */}}
{{- define "konductor.helm" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{/* A ClusterRole or binding is there once a cluster, and the leader election has one name: so has everything else. */}}
{{- define "konductor.labels" -}}
app.kubernetes.io/name: konductor-lease
{{ include "konductor.helm" . }}
{{- end }}

{{- define "konductor.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* A number of YAML comes as a float: 10000 must not become 1e+04. */}}
{{- define "konductor.args" -}}
{{- with .Values.controller }}
{{- with .logFormat }}
- --log-format={{ . }}
{{- end }}
{{- with .log }}
- {{ printf "--log=%s" . | quote }}
{{- end }}
- --policy-cache-dir=/var/cache/konductor
{{- if $.Values.policyCache.keySecret }}
- --policy-cache-key-file=/etc/konductor/key
{{- end }}
{{- range $flag, $value := dict "default-policy" .defaultPolicy "leader-election-duration" .leaderElectionDuration "max-clock-skew" .maxClockSkew "max-hold" .maxHold "expired-retention" .expiredRetention "finished-retention" .finishedRetention "policy-compile-time" .policyCompileTime }}
{{- with $value }}
- --{{ $flag }}={{ . }}
{{- end }}
{{- end }}
{{- with .maxWaiting }}
- --max-waiting={{ int64 . }}
{{- end }}
{{- with .workers }}
- --workers={{ int64 . }}
{{- end }}
{{- range .extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end }}
{{- end }}
