// What the API gives, as far as the console shows it (api/control/*_schemas.py).
export interface Session {
  tenant: string
  scopes: string[]
  operator: boolean
  dev: boolean
  version: string
  currency: boolean
}

export interface ReplicaReport {
  id: string
  phase: string
  running: number
  requests_done: number
  tokens_per_s: number
  steps: number
  mixed_steps: number
  most_adapters_in_step: number
  adapters: string[]
  ready_after_s: number
  cold_start: Record<string, number> | null
}

export interface Limits {
  requests_per_min: number | null
  tokens_per_min: number | null
  tokens_per_day: number | null
  concurrent: number | null
}

export interface Deployment {
  name: string
  description: string
  base_model: string
  status: string
  reason: string
  progress: number | null
  min_replicas: number
  max_replicas: number
  cooldown_time: number
  scale_up_threshold: number
  target_wait_s: number
  cold_start_weight: number
  schedules: { min_replicas: number; days: string[]; start: string; end: string; timezone: string }[]
  priority: number
  shared: boolean
  capture: number
  limits: Limits
  engine: Record<string, string>
  revision: number
  change: { revision: number; base_model: string; engine: Record<string, string> } | null
  created_at: string
  changed_at: string
  replicas: ReplicaReport[]
}

export interface ReplicaRow {
  id: string
  state: string
  reason: string
  revision: number
  host: string
  slot: number
  created_at: string
  ready_at: string | null
  gone_at: string | null
}

export interface DeploymentEvent {
  id: number
  at: string
  kind: string
  actor: string
  from_status: string
  to_status: string
  reason: string
  inputs: Record<string, number> | null
  deployment?: string
}

export interface Explanation {
  why: string
  wanted: number | null
  allowed: number | null
  has: number | null
  would_change: string[]
  inputs: Record<string, number>
}

export type Columns = Record<string, (number | null)[]> & { time: number[] }

export interface Charts {
  step_s: number
  range_s: number
  columns: Columns
}

export interface Place {
  deployment: string
  replica: string
  tier: string
  reason: string
}

export interface Adapter {
  ref: string
  repo: string
  version: number
  base_model: string
  digest: string
  rank: number
  targets: string[]
  size_bytes: number
  checkpoint: number
  archived: boolean
  tags: Record<string, string>
  lineage: Record<string, unknown>
  created_at: string
  state?: string
  places?: Place[]
}

export interface Repo {
  id: string
  name: string
  description: string
  created_at: string
  versions: Adapter[]
}

export interface Alias {
  ref: string
  versions: Record<string, number>
  previous: Record<string, number>
  shadow: number | null
  shadow_percent: number
}

export interface VersionFigures {
  version: string
  answers: number
  failed: number
  prompt_tokens: number
  completion_tokens: number
  first_token_p50_s: number | null
  first_token_p95_s: number | null
  duration_p50_s: number | null
  tokens_per_s_p50: number | null
}

export interface TrainingJob {
  id: string
  model: string
  status: string
  fine_tuned_model: string | null
  created_at: number
  finished_at: number | null
  estimated_finish: number | null
  trained_tokens: number | null
  training_file: string
  hyperparameters: Record<string, unknown>
  error: { message: string } | null
  progress: { step: number; total_steps: number | null; loss: number | null }
}

export interface LiveJob {
  id: string
  state: string
  step: number
  total_steps: number
  loss: number | null
  validation_loss: number | null
  left_s: number | null
  yielding: boolean
}

export interface TrainingEvent {
  id: string
  created_at: number
  level: string
  message: string
  type: string
  data: Record<string, number | null> | null
}

export interface UsageLine {
  start: string
  deployment: string | null
  adapter: string | null
  key: string | null
  tenant: string | null
  requests: number
  answers: number
  failed: number
  prompt_tokens: number
  cached_tokens: number
  completion_tokens: number
  mean_queue_s: number | null
  mean_first_token_s: number | null
  mean_duration_s: number | null
  replica_s: number
  cost: number
}

export interface Key {
  id: string
  tenant: string
  name: string
  hint: string
  scopes: string[]
  created_at: string
  expires_at: string | null
  last_used_at: string | null
  replaced_by: string | null
  revoked_at: string | null
  key?: string
}

export interface Tenant {
  name: string
  operator: boolean
  plan: string | null
  budget: number | null
  budget_state: string
}

export interface Plan extends Limits {
  name: string
}

export interface DeadLetter {
  request: string
  deployment: string
  error: string
  at?: string
}

export interface System {
  version: string
  database: string
  leader: string
  processes: { kind: string; replica: string; metrics: string; seen_s: number }[]
  redis: {
    version: string
    memory: number
    memory_most: number
    clients: number
    commands_per_s: number
    policy: string
    persistent: boolean
    uptime_s: number
  }
  places: {
    host: string
    slot: number
    kind: string
    id: string
    deployment: string
    state: string
    since: string
  }[]
}
