// API keys of the tenant; for operators also tenants and what their plans allow.
import { useState } from 'preact/hooks'
import { call, session } from '../api/client'
import type { Key, Plan, Tenant } from '../api/types'
import { confirm } from '../parts/asking'
import { Card, Empty, Loading, PageHead, Pill, Table } from '../parts/basics'
import { Dialog, Field, FormDialog, typed } from '../parts/forms'
import { useGet } from '../parts/loading'
import { ago, money, number, when } from '../parts/format'

const SCOPES = ['inference', 'deployments', 'adapters', 'admin']

export function Keys() {
  const [creating, setCreating] = useState(false)
  const { value, error, reload } = useGet<{ data: Key[] }>('/api/v1/keys', 10)
  const revoke = (key: Key) =>
    confirm({
      title: `Revoke ${key.name}?`,
      text: 'Whoever uses it is refused from now on, also at this console.',
      verb: 'Revoke',
      run: async () => {
        await call('DELETE', `/api/v1/keys/${key.id}`)
        reload()
      },
    })
  return (
    <>
      <PageHead title="Keys and limits">
        <button class="primary" onClick={() => setCreating(true)}>
          New key
        </button>
      </PageHead>
      <Card title="API keys">
        {!value && <Loading error={error} />}
        {value && (
          <Table label="API keys" head={['Name', 'Ends with', 'Scopes', 'Tenant', 'Made', 'Expires', 'Last used', '']}>
            {value.data.map((key) => (
              <tr key={key.id} class={key.revoked_at ? 'off' : undefined}>
                <td>
                  {key.name} <small class="muted">{key.id}</small>
                </td>
                <td class="code">{key.hint ? `…${key.hint}` : '–'}</td>
                <td>{key.scopes.join(', ')}</td>
                <td>{key.tenant}</td>
                <td class="nowrap">{when(key.created_at)}</td>
                <td class="nowrap">{key.expires_at ? when(key.expires_at) : 'never'}</td>
                <td class="nowrap">{ago(key.last_used_at)}</td>
                <td>
                  {key.revoked_at ? (
                    <span class="tag">revoked</span>
                  ) : (
                    <button class="quiet" onClick={() => revoke(key)} aria-label={`Revoke ${key.name}`}>
                      Revoke
                    </button>
                  )}
                </td>
              </tr>
            ))}
          </Table>
        )}
      </Card>
      {session.value?.operator && <Tenants />}
      {creating && (
        <Create
          onClose={() => {
            setCreating(false)
            reload()
          }}
        />
      )}
    </>
  )
}

function Tenants() {
  const tenants = useGet<{ data: Tenant[] }>('/api/v1/tenants', 10)
  const plans = useGet<{ data: Plan[] }>('/api/v1/plans', 10)
  return (
    <>
      <Card title="Tenants">
        <Table label="Tenants" head={['Tenant', 'Plan', 'Budget a month', 'State']}>
          {tenants.value?.data.map((tenant) => (
            <tr key={tenant.name}>
              <td>
                {tenant.name} {tenant.operator && <span class="tag">runs the platform</span>}
              </td>
              <td>{tenant.plan ?? 'no limits'}</td>
              <td>{tenant.budget === null ? 'none' : money(tenant.budget)}</td>
              <td>
                <Pill status={tenant.budget_state} />
              </td>
            </tr>
          ))}
        </Table>
      </Card>
      <Card title="Plans">
        {plans.value?.data.length === 0 && (
          <Empty>
            No plans: nobody is limited. <code>loraplex plans set small --requests-per-min 60</code>
          </Empty>
        )}
        {!!plans.value?.data.length && (
          <Table label="Plans" head={['Plan', 'Requests a minute', 'Tokens a minute', 'Tokens a day', 'At once']}>
            {plans.value.data.map((plan) => (
              <tr key={plan.name}>
                <td>{plan.name}</td>
                <td>{number(plan.requests_per_min, 0)}</td>
                <td>{number(plan.tokens_per_min, 0)}</td>
                <td>{number(plan.tokens_per_day, 0)}</td>
                <td>{number(plan.concurrent, 0)}</td>
              </tr>
            ))}
          </Table>
        )}
      </Card>
    </>
  )
}

function Create({ onClose }: { onClose: () => void }) {
  const [made, setMade] = useState<Key | null>(null)
  const submit = async (given: FormData) => {
    const days = typed(given, 'days')
    setMade(
      await call<Key>('POST', '/api/v1/keys', {
        name: typed(given, 'name'),
        scopes: given.getAll('scope'),
        expires_in_s: days ? Number(days) * 86400 : null,
      }),
    )
  }
  if (made)
    return (
      <Dialog title={`The key ${made.name}`} onClose={onClose}>
        <p>It is shown now and never again. Keep it where secrets are kept.</p>
        <pre class="secret" tabIndex={0}>
          {made.key}
        </pre>
        <footer class="buttons">
          <button class="primary" onClick={onClose}>
            I have it
          </button>
        </footer>
      </Dialog>
    )
  return (
    <FormDialog title="New API key" verb="Make the key" onClose={onClose} submit={submit}>
        <Field label="Name" name="name" required maxLength={128} autocomplete="off" />
        <fieldset>
          <legend>Scopes</legend>
          {SCOPES.map((scope) => (
            <label class="check">
              <input type="checkbox" name="scope" value={scope} defaultChecked={scope === 'inference'} /> {scope}
            </label>
          ))}
        </fieldset>
        <Field label="Expires after days" name="days" type="number" min="1" max="3650" hint="Empty: never." />
    </FormDialog>
  )
}
