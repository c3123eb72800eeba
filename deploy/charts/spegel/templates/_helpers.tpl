{{- define "spegel.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{/* Names objects after the release, without saying the chart's name twice. */}}
{{- define "spegel.fullname" -}}
{{- $name := .Values.nameOverride | default .Chart.Name -}}
{{- $combined := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- .Values.fullnameOverride | default $combined | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{/* A name with a suffix, within the 63 characters that a Service may have. */}}
{{- define "spegel.suffixed" -}}
{{- $suffix := index . 1 -}}
{{- $fullname := include "spegel.fullname" (index . 0) -}}
{{- printf "%s-%s" ($fullname | trunc (int (sub 62 (len $suffix))) | trimSuffix "-") $suffix -}}
{{- end }}

{{- define "spegel.namespace" -}}
{{- .Values.namespaceOverride | default .Release.Namespace -}}
{{- end }}

{{- define "spegel.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (include "spegel.fullname" .) -}}
{{- end }}

{{- define "spegel.selectorLabels" -}}
app.kubernetes.io/name: {{ include "spegel.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* The labels of an object; takes the root and the component, which may be empty. */}}
{{- define "spegel.labels" -}}
{{- $root := index . 0 -}}
{{- with index . 1 -}}
app.kubernetes.io/component: {{ . }}
{{ end -}}
{{ include "spegel.selectorLabels" $root }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The selector of a component's pods. */}}
{{- define "spegel.selector" -}}
app.kubernetes.io/component: {{ index . 1 }}
{{ include "spegel.selectorLabels" (index . 0) }}
{{- end }}

{{- define "spegel.image" -}}
{{- $repository := required "image.repository is empty: no image is published; build one with 'make image', push it to a registry of yours and name it here" .Values.image.repository -}}
{{- if .Values.image.digest -}}
{{ $repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ $repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* What every container of ours begins with. */}}
{{- define "spegel.container" -}}
image: {{ include "spegel.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end }}

{{/* The address under which the node reaches its own registry port. */}}
{{- define "spegel.nodeIp" -}}
- name: NODE_IP
{{- with .Values.service.registry.nodeIp }}
  value: {{ . | quote }}
{{- else }}
  valueFrom:
    fieldRef:
      fieldPath: status.hostIP
{{- end }}
{{- end }}

{{- define "spegel.mirrorPort" -}}
{{- .Values.service.registry.hostPort | default .Values.service.registry.nodePort -}}
{{- end }}

{{/* The dual-stack fields of a Service. */}}
{{- define "spegel.ipFamilies" -}}
{{- with .Values.service.ipFamilyPolicy }}
ipFamilyPolicy: {{ . }}
{{- end }}
{{- with .Values.service.ipFamilies }}
ipFamilies:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Clusters before 1.34 refuse PreferSameNode, or know no traffic distribution at all. */}}
{{- define "spegel.trafficPolicy" -}}
{{- if or .Values.service.registry.internalTrafficLocal (semverCompare "<1.34.0-0" .Capabilities.KubeVersion.Version) -}}
internalTrafficPolicy: Local
{{- else -}}
trafficDistribution: PreferSameNode
{{- end -}}
{{- end }}

{{/*
The registries in force, as a YAML list: those of `spegel`, or those at the top level, where a name without a scheme means https.
*/}}
{{- define "spegel.mirroredRegistries" -}}
{{- $outer := list -}}
{{- range .Values.mirroredRegistries -}}
{{- $outer = append $outer (ternary . (printf "https://%s" .) (or (contains "://" .) (has . (list "_default" "*")))) -}}
{{- end -}}
{{- $inner := .Values.spegel.mirroredRegistries | default list -}}
{{- if and $outer $inner (ne (toJson $outer) (toJson $inner)) -}}
{{- fail (printf "mirroredRegistries (%s) and spegel.mirroredRegistries (%s) contradict each other: give one of them" (join ", " $outer) (join ", " $inner)) -}}
{{- end -}}
{{- ($inner | default $outer) | toYaml -}}
{{- end }}

{{/* A value that `spegel` has with a default and the top level may have; takes the root, its name and the default. */}}
{{- define "spegel.eitherLevel" -}}
{{- $root := index . 0 -}}{{- $name := index . 1 -}}{{- $default := index . 2 -}}
{{- $outer := index $root.Values $name -}}
{{- $inner := index $root.Values.spegel $name -}}
{{- if kindIs "invalid" $outer -}}
{{- $inner -}}
{{- else -}}
{{- if not (has (toString $inner) (list (toString $default) (toString $outer))) -}}
{{- fail (printf "%s (%v) and spegel.%s (%v) contradict each other: give one of them" $name $outer $name $inner) -}}
{{- end -}}
{{- $outer -}}
{{- end -}}
{{- end }}

{{/*
containerd makes its socket anew when it restarts. A mount of the socket itself would keep the old one, so by default its directory
is mounted; unmounts on the node reach the pod, or it would hold on to the root file systems of stopped containers.
*/}}
{{- define "spegel.socketVolume" -}}
- name: containerd-sock
  hostPath:
{{- if eq .Values.spegel.containerdSockMount "Socket" }}
    path: {{ .Values.spegel.containerdSock }}
    type: Socket
{{- else }}
    path: {{ dir .Values.spegel.containerdSock }}
    type: Directory
{{- end }}
{{- end }}

{{- define "spegel.socketMount" -}}
- name: containerd-sock
{{- if eq .Values.spegel.containerdSockMount "Socket" }}
  mountPath: {{ .Values.spegel.containerdSock }}
{{- else }}
  mountPath: {{ dir .Values.spegel.containerdSock }}
  mountPropagation: HostToContainer
  readOnly: true
{{- end }}
{{- end }}

{{/*
The paths of values that the chart does not have, a line each: typing errors, or values of other versions. `known` has the chart's own
defaults, where an empty map stands for one whose keys are free.
*/}}
{{- define "spegel.unknownValues" -}}
{{- $path := .path -}}
{{- $known := .known -}}
{{- range $key, $value := .values -}}
{{- $name := ternary $key (printf "%s.%s" $path $key) (eq $path "") -}}
{{- if and (eq $path "") (eq $key "global") -}}
{{- else if not (hasKey $known $key) }}
{{ $name }}
{{- else if and (kindIs "map" $value) (kindIs "map" (index $known $key)) -}}
{{- if index $known $key -}}
{{- include "spegel.unknownValues" (dict "values" $value "known" (index $known $key) "path" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}
