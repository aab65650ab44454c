{{/* What all processes share. Each takes a dict: root, and name or image. */}}

{{- define "loraplex.labels" -}}
app.kubernetes.io/name: loraplex
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .name }}
{{- end }}

{{- define "loraplex.image" -}}
{{ .root.Values.images.registry }}/{{ .image }}:{{ .tag | default .root.Values.images.tag | default .root.Chart.AppVersion }}
{{- end }}

{{- define "loraplex.claim" -}}
{{ .Values.home.existingClaim | default (printf "%s-home" .Release.Name) }}
{{- end }}

{{- define "loraplex.pod" -}}
automountServiceAccountToken: {{ .token | default false }}
serviceAccountName: {{ .root.Release.Name }}-{{ if .token }}driver{{ else }}store{{ end }}
enableServiceLinks: false
{{- with .root.Values.images.pullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "loraplex.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
imagePullPolicy: {{ .Values.images.pullPolicy }}
{{- end }}

{{/* The tables, before the first process of a version starts. Those at once wait for each other. */}}
{{- define "loraplex.migrate" -}}
- name: migrate
  image: {{ .image }}
  {{- include "loraplex.container" .root | nindent 2 }}
  command: ["python", "-m", "loraplex.database"]
  resources: {requests: {cpu: 100m, memory: 256Mi}, limits: {memory: 512Mi}}
  env:
    {{- include "loraplex.control-environment" .root | nindent 4 }}
    {{- include "loraplex.secret" (dict "root" .root "name" "LORAPLEX_API_KEY" "key" "api-key") | nindent 4 }}
  volumeMounts:
    - {name: home, mountPath: /var/lib/loraplex}
    - {name: tmp, mountPath: /tmp}
{{- end }}

{{- define "loraplex.from" -}}
{{- with .Values.extraSecret }}
envFrom: [{secretRef: {name: {{ . }}}}]
{{- end }}
{{- end }}

{{- define "loraplex.secret" -}}
- name: {{ .name }}
  valueFrom: {secretKeyRef: {name: {{ .root.Values.secret }}, key: {{ .key }}}}
{{- end }}

{{- define "loraplex.environment" -}}
{{- $defaults := dict "LORAPLEX_ALLOW_LOCAL_MODELS" "false" "LORAPLEX_LOG_FORMAT" "json" "LORAPLEX_METRICS_HOST" "0.0.0.0" "HF_HOME" "/var/lib/loraplex/huggingface" -}}
{{- range $name, $value := mergeOverwrite $defaults .Values.settings }}
- {name: {{ $name }}, value: {{ if kindIs "string" $value }}{{ $value | quote }}{{ else }}{{ toJson $value | quote }}{{ end }}}
{{- end }}
{{- end }}

{{- define "loraplex.control-environment" -}}
{{- include "loraplex.environment" . }}
{{ include "loraplex.secret" (dict "root" . "name" "LORAPLEX_REDIS_URL" "key" "redis-url") }}
{{ include "loraplex.secret" (dict "root" . "name" "LORAPLEX_DATABASE_URL" "key" "database-url") }}
{{ include "loraplex.secret" (dict "root" . "name" "LORAPLEX_SECRET_KEY" "key" "secret-key") }}
{{- end }}

{{- define "loraplex.driver-environment" -}}
{{- $fleet := dict -}}
{{- $prices := dict -}}
{{- range $name, $pool := .Values.pools }}
{{- $_ := set $fleet $name (int $pool.most) -}}
{{- $_ := set $prices $name ($pool.price | default 0) -}}
{{- end }}
- {name: LORAPLEX_DRIVER, value: kubernetes}
- {name: LORAPLEX_KUBERNETES_INSTALLATION, value: {{ .Release.Name | quote }}}
- {name: LORAPLEX_KUBERNETES_TEMPLATES, value: /etc/loraplex/pods}
- {name: LORAPLEX_FLEET, value: {{ toJson $fleet | quote }}}
- {name: LORAPLEX_PRICES, value: {{ toJson $prices | quote }}}
{{- end }}

{{- define "loraplex.alive" -}}
exec: {command: [sh, -c, '[ -n "$(find "$LORAPLEX_ALIVE_FILE" -newermt -30sec)" ]']}
periodSeconds: 10
timeoutSeconds: 5
{{- end }}

{{- define "loraplex.celery" -}}
["python", "-m", "celery", "-A", "scheduler.tasks.app", "worker", "-Q", {{ . | quote }}, "--pool=threads", "--concurrency=4", "--loglevel=INFO", "--without-gossip", "--without-mingle"]
{{- end }}
