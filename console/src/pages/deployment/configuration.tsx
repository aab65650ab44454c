// What may be changed of a deployment, a form for each kind of change.
import type { ComponentChildren } from 'preact'
import { call, deploymentPath, session } from '../../api/client'
import type { Deployment, Limits } from '../../api/types'
import { act } from '../../parts/asking'
import { Card } from '../../parts/basics'
import { Field, TextArea, typed } from '../../parts/forms'
import { when } from '../../parts/format'
import type { TabProps } from './page'
import { lines, readEngine, readSchedule, writeEngine, writeSchedule } from './written'

const KNOBS: [keyof Deployment, string, string, string, string][] = [
  ['min_replicas', 'Least replicas', '0', '64', '0: it stops when nobody asks.'],
  ['max_replicas', 'Most replicas', '1', '64', ''],
  ['cooldown_time', 'Cooldown (s)', '0', '604800', 'No idle replica is kept for longer.'],
  ['scale_up_threshold', 'Scale-up threshold', '1', '4096', 'Queued and running requests per replica.'],
  ['target_wait_s', 'Target wait (s)', '0.1', '3600', "A request's longest wait."],
  ['cold_start_weight', 'Cold start weight', '0', '1000', 'Idle seconds that a second of a cold start is worth.'],
  ['priority', 'Priority', '-100', '100', 'The lower one yields on a full fleet.'],
]
const FRACTIONS = ['target_wait_s', 'cold_start_weight']

// In the API's order, as schedules are: what is the same is not a change.
const LIMITS: [keyof Limits, string][] = [
  ['requests_per_min', 'Requests per minute'],
  ['tokens_per_min', 'Tokens per minute'],
  ['tokens_per_day', 'Tokens per day (UTC)'],
  ['concurrent', 'Answers at once'],
]

type Values = (given: FormData) => Record<string, unknown>

export function Configuration({ deployment }: TabProps) {
  return (
    <>
      <Scaling {...{ deployment }} />
      <MadeOf {...{ deployment }} />
      <LimitsForm {...{ deployment }} />
      <Sharing {...{ deployment }} />
    </>
  )
}

const written = (given: FormData) => JSON.stringify([...given])

// Sends what is different from what is shown.
function Form(props: { title: string; of: Deployment; values: Values; children: ComponentChildren }) {
  const save = async (given: FormData) => {
    const shown = props.of as unknown as Record<string, unknown>
    const values = Object.entries(props.values(given))
    const changes = values.filter(([name, value]) => JSON.stringify(value) !== JSON.stringify(shown[name]))
    await call('PATCH', deploymentPath(props.of.name), Object.fromEntries(changes))
  }
  const submit = (event: Event) => {
    event.preventDefault()
    const form = event.currentTarget as HTMLFormElement
    const given = new FormData(form)
    // Then its fields follow what others change, too, but for what was typed meanwhile.
    const typedOn = () => written(new FormData(form)) !== written(given)
    act('Save', () => save(given)).then((well) => well && !typedOn() && form.reset())
  }
  return (
    <Card title={props.title}>
      <form onSubmit={submit} aria-label={props.title}>
        {props.children}
        <footer class="buttons">
          <button class="primary">Save</button>
        </footer>
      </form>
    </Card>
  )
}

function Scaling({ deployment }: { deployment: Deployment }) {
  const values: Values = (given) => ({
    ...Object.fromEntries(KNOBS.map(([name]) => [name, Number(given.get(name))])),
    schedules: lines(typed(given, 'schedules')).map(readSchedule),
    description: String(given.get('description')),
  })
  return (
    <Form title="Scaling" of={deployment} values={values}>
      <div class="fields">
        {KNOBS.map(([name, label, min, max, hint]) => (
          <Field
            key={name}
            {...{ label, name, min, max, hint }}
            type="number"
            step={FRACTIONS.includes(name) ? 'any' : '1'}
            required
            defaultValue={String(deployment[name])}
          />
        ))}
        <Field label="Description" name="description" maxLength={1024} defaultValue={deployment.description} />
      </div>
      <TextArea
        label="Schedules"
        name="schedules"
        rows={Math.max(2, deployment.schedules.length + 1)}
        placeholder="mon,tue,wed,thu,fri 08:00-18:00 Europe/Berlin min=2"
        defaultValue={deployment.schedules.map(writeSchedule).join('\n')}
        hint="Hours with another least number of replicas, one a line: [days] HH:MM-HH:MM [time zone] min=N."
      />
    </Form>
  )
}

function MadeOf({ deployment }: { deployment: Deployment }) {
  const { revision, change } = deployment
  const goal = change ?? deployment
  const values: Values = (given) => ({
    base_model: typed(given, 'base_model'),
    engine: readEngine(typed(given, 'engine')),
  })
  return (
    <Form title="What its replicas are made of" of={{ ...deployment, ...goal }} values={values}>
      <p class="muted">
        Revision {revision}
        {change && ` → ${change.revision}, under way`}. A change is rolled out under load: new replicas first, then the
        old ones are drained.
      </p>
      <Field label="Base model" name="base_model" required defaultValue={goal.base_model} />
      <TextArea
        label="Engine"
        name="engine"
        rows={Math.max(2, Object.keys(goal.engine).length + 1)}
        placeholder="dtype=float32"
        defaultValue={writeEngine(goal.engine)}
        hint="name=value, one a line: device, dtype, max_running, max_step_tokens, kv_cache_gib, max_adapters, deterministic, threads, preload. The others are the platform's."
      />
    </Form>
  )
}

function LimitsForm({ deployment }: { deployment: Deployment }) {
  const value = (given: FormData, name: string) => Number(given.get(name)) || null
  const values: Values = (given) => ({
    limits: Object.fromEntries(LIMITS.map(([name]) => [name, value(given, name)])),
  })
  return (
    <Form title="What each tenant may ask of it" of={deployment} values={values}>
      <div class="fields">
        {LIMITS.map(([name, label]) => (
          <Field
            key={name}
            {...{ label, name }}
            type="number"
            min="1"
            placeholder="no limit"
            defaultValue={String(deployment.limits[name] ?? '')}
          />
        ))}
      </div>
    </Form>
  )
}

function Sharing({ deployment }: { deployment: Deployment }) {
  const values: Values = (given) => ({
    capture: Number(given.get('capture')) / 100,
    ...(session.value?.operator && { shared: given.get('shared') === 'on' }),
  })
  return (
    <Form title="Who asks it, and what is kept" of={deployment} values={values}>
      {session.value?.operator && (
        <label class="check">
          <input type="checkbox" name="shared" defaultChecked={deployment.shared} /> Shared with all tenants
        </label>
      )}
      <Field
        label="Captured (%)"
        name="capture"
        type="number"
        min="0"
        max="100"
        step="any"
        required
        defaultValue={String(deployment.capture * 100)}
        hint="Of your own requests, kept with their answers for datasets."
      />
      <p class="muted">Made {when(deployment.created_at)}.</p>
    </Form>
  )
}
