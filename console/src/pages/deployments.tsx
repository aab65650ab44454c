import { useState } from 'preact/hooks'
import { Link, useLocation } from 'wouter-preact'
import { call, may, owns, session } from '../api/client'
import { deployments, rateOf } from '../api/live'
import { say } from '../parts/asking'
import { Empty, PageHead, Pill, Table } from '../parts/basics'
import { Field, FormDialog, typed } from '../parts/forms'
import { money, number } from '../parts/format'

export function Deployments() {
  const [creating, setCreating] = useState(false)
  const all = deployments.value
  return (
    <>
      <PageHead title="Deployments">
        {may('deployments') && (
          <button class="primary" onClick={() => setCreating(true)}>
            New deployment
          </button>
        )}
      </PageHead>
      {all === null && <Empty>Loading …</Empty>}
      {all?.length === 0 && (
        <Empty>
          There are no deployments yet. Make one here, or: <code>loraplex deploy NAME --base-model MODEL</code>
        </Empty>
      )}
      {!!all?.length && (
        <Table label="Deployments" head={['Name', 'Status', 'Replicas', 'Requests/s', 'Tokens/s', 'Waiting', 'Cost now', 'Base model']}>
          {all.map((each) => {
            const rate = (figure: string) => (owns(each) ? rateOf(each.name, figure) : null)
            return (
              <tr key={each.name}>
                <td>
                  <Link href={`/deployments/${each.name}`}>{each.name}</Link>
                  {each.shared && <span class="tag">shared</span>}
                </td>
                <td>
                  <Pill status={each.status} />
                </td>
                <td>
                  {owns(each) ? each.replicas.filter((replica) => replica.phase === 'ready').length : '–'}
                  <span class="muted"> of {each.min_replicas}–{each.max_replicas}</span>
                </td>
                <td>{number(rate('requests_per_s'))}</td>
                <td>{number(rate('tokens_per_s'))}</td>
                <td>{number(rate('waiting'), 0)}</td>
                <td>{session.value?.currency ? `${money(rate('cost_per_h'))}/h` : '–'}</td>
                <td class="muted">{each.base_model}</td>
              </tr>
            )
          })}
        </Table>
      )}
      {creating && <Create onClose={() => setCreating(false)} />}
    </>
  )
}

function Create({ onClose }: { onClose: () => void }) {
  const [, go] = useLocation()
  const submit = async (given: FormData) => {
    const name = typed(given, 'name')
    await call('POST', '/api/v1/deployments', {
      name,
      base_model: typed(given, 'base_model'),
      min_replicas: Number(typed(given, 'min')),
      max_replicas: Number(typed(given, 'max')),
      cooldown_time: Number(typed(given, 'cooldown')),
    })
    say(`Deployment ${name} is made.`)
    go(`/deployments/${name}`)
    onClose()
  }
  const known = [...new Set((deployments.value ?? []).map((each) => each.base_model))]
  return (
    <FormDialog title="New deployment" verb="Create" onClose={onClose} submit={submit}>
        <Field label="Name" name="name" required pattern="[a-z0-9]([a-z0-9.\-]{0,61}[a-z0-9])?" autocomplete="off" hint="Lower-case letters, digits, - and ." />
        <Field label="Base model" name="base_model" required list="models" hint="As on the Hugging Face hub; operators may name a folder." />
        <datalist id="models">
          {known.map((name) => (
            <option value={name} />
          ))}
        </datalist>
        <div class="row">
          <Field label="Least replicas" name="min" type="number" min="0" max="64" value="0" required />
          <Field label="Most replicas" name="max" type="number" min="1" max="64" value="1" required />
          <Field label="Cooldown (s)" name="cooldown" type="number" min="0" max="604800" value="3600" required />
        </div>
    </FormDialog>
  )
}
