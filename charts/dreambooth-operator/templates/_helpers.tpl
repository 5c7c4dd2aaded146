{{- define "dreambooth-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* At most 52 characters, so that suffixes fit. */}}
{{- define "dreambooth-operator.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains .Chart.Name .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "dreambooth-operator.selector" -}}
app.kubernetes.io/name: {{ include "dreambooth-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "dreambooth-operator.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "dreambooth-operator.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: dreambooth-operator
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "dreambooth-operator.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "dreambooth-operator.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.name: name the ServiceAccount to use, or set serviceAccount.create." .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* An image by digest, or else by tag. Takes a list: the image's values, the default tag. */}}
{{- define "dreambooth-operator.image" -}}
{{- $image := index . 0 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ default (index . 1) $image.tag }}
{{- end }}
{{- end }}

{{- define "dreambooth-operator.runtimeImage" -}}
{{- include "dreambooth-operator.image" (list .Values.runtime.image .Chart.AppVersion) }}
{{- end }}

{{/* The operator's settings file. */}}
{{- define "dreambooth-operator.settings" -}}
runtime:
  image: {{ include "dreambooth-operator.runtimeImage" . | quote }}
  rayVersion: {{ .Values.runtime.rayVersion | quote }}
  imagePullPolicy: {{ .Values.runtime.imagePullPolicy }}
  imagePullSecrets: {{ toJson .Values.runtime.imagePullSecrets }}
pools:
  {{- toYaml .Values.pools | nindent 2 }}
{{- with .Values.defaultPool }}
defaultPool: {{ . }}
{{- end }}
head:
  {{- toYaml .Values.head | nindent 2 }}
{{- with .Values.workspace }}
workspace:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.limits }}
limits:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.namespaces }}
namespaces:
  {{- toYaml . | nindent 2 }}
{{- end }}
retryBackoff: {{ toJson .Values.retryBackoff }}
progressIntervalSeconds: {{ .Values.progressIntervalSeconds }}
resyncSeconds: {{ .Values.resyncSeconds }}
concurrency: {{ .Values.concurrency }}
watchNamespaces: {{ toJson .Values.watchNamespaces }}
networkPolicy:
  {{- toYaml .Values.jobNetworkPolicy | nindent 2 }}
lease:
  enabled: {{ gt (int .Values.replicas) 1 }}
  name: {{ include "dreambooth-operator.fullname" . }}
port: 8080
logLevel: {{ .Values.logLevel }}
{{- end }}

{{/* What the operator may do with jobs and their children, in each namespace that it serves. */}}
{{- define "dreambooth-operator.rules" -}}
- apiGroups: [dreambooth.dev]
  resources: [dreamboothjobs]
  verbs: [get, list, watch, delete]
- apiGroups: [dreambooth.dev]
  resources: [dreamboothjobs/status]
  verbs: [patch]
# Children have owner references that block the job's deletion.
- apiGroups: [dreambooth.dev]
  resources: [dreamboothjobs/finalizers]
  verbs: [update]
- apiGroups: [ray.io]
  resources: [rayjobs]
  verbs: [get, list, watch, create, patch, delete]
# The driver's role is a part of this rule, as the API server asks of whoever makes a role.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [serviceaccounts, persistentvolumeclaims]
  verbs: [get, create, patch]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [roles, rolebindings]
  verbs: [get, create, patch]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, create, patch]
- apiGroups: [""]
  resources: [pods]
  verbs: [list]
- apiGroups: [""]
  resources: [events]
  verbs: [create]
{{- end }}
