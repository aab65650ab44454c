import { call, deploymentPath } from '../../api/client'
import { act, Card, Field } from '../../parts/basics'
import { when } from '../../parts/format'
import type { TabProps } from './page'

const KNOBS: [keyof TabProps['deployment'], string, string, string, string][] = [
  ['min_replicas', 'Least replicas', '0', '64', '0: it stops when nobody asks.'],
  ['max_replicas', 'Most replicas', '1', '64', ''],
  ['cooldown_time', 'Cooldown (s)', '0', '604800', 'No idle replica is kept for longer.'],
  ['scale_up_threshold', 'Scale-up threshold', '1', '4096', 'Queued and running requests per replica.'],
  ['target_wait_s', 'Target wait (s)', '0.1', '3600', "A request's longest wait."],
  ['priority', 'Priority', '-100', '100', 'The lower one yields on a full fleet.'],
]

export function Configuration({ deployment }: TabProps) {
  const submit = (event: Event) => {
    event.preventDefault()
    const given = new FormData(event.currentTarget as HTMLFormElement)
    const changes: Record<string, number | string> = {}
    for (const [name] of KNOBS) {
      const value = Number(given.get(name))
      if (value !== deployment[name]) changes[name] = value
    }
    const description = String(given.get('description'))
    if (description !== deployment.description) changes.description = description
    act('Save', () => call('PATCH', deploymentPath(deployment.name), changes))
  }
  const engine = Object.entries(deployment.engine)
  return (
    <>
      <Card title="Scaling">
        <form onSubmit={submit}>
          <div class="fields">
            {KNOBS.map(([name, label, min, max, hint]) => (
              <Field
                key={name}
                label={label}
                name={name}
                type="number"
                step={name === 'target_wait_s' ? 'any' : '1'}
                min={min}
                max={max}
                required
                hint={hint}
                defaultValue={String(deployment[name])}
              />
            ))}
            <Field label="Description" name="description" maxLength={1024} defaultValue={deployment.description} />
          </div>
          <footer class="buttons">
            <button class="primary">Save</button>
          </footer>
        </form>
      </Card>
      <Card title="What its replicas are made of">
        <dl class="facts">
          <dt>Base model</dt>
          <dd>{deployment.base_model}</dd>
          <dt>Revision</dt>
          <dd>
            {deployment.revision}
            {deployment.change && ` → ${deployment.change.revision} (${deployment.change.base_model})`}
          </dd>
          <dt>Engine</dt>
          <dd>{engine.length ? engine.map(([name, value]) => `${name} = ${value}`).join(', ') : "the platform's settings"}</dd>
          <dt>Schedules</dt>
          <dd>
            {deployment.schedules.length
              ? deployment.schedules.map((s) => `${s.days.join(',')} ${s.start}–${s.end} ${s.timezone}: at least ${s.min_replicas}`).join('; ')
              : 'none'}
          </dd>
          <dt>Shared</dt>
          <dd>{deployment.shared ? 'with all tenants' : 'no'}</dd>
          <dt>Captured</dt>
          <dd>{deployment.capture ? `${deployment.capture * 100} % of its owner's requests` : 'nothing'}</dd>
          <dt>Created</dt>
          <dd>{when(deployment.created_at)}</dd>
        </dl>
        <p class="muted">
          Another base model or engine: <code>loraplex update {deployment.name} --base-model … --engine dtype=float32</code>
        </p>
      </Card>
    </>
  )
}
