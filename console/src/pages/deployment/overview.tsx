import { deploymentPath, session } from '../../api/client'
import { rateOf } from '../../api/live'
import type { Explanation, ReplicaRow } from '../../api/types'
import { Card, Empty, Pill, Stat, Table } from '../../parts/basics'
import { useGet } from '../../parts/loading'
import { ago, money, number, seconds } from '../../parts/format'
import { Copied } from './snippets'
import type { TabProps } from './page'

export function Overview({ deployment, owned }: TabProps) {
  const { name, replicas } = deployment
  const rate = (figure: string) => (owned ? rateOf(name, figure) : null)
  const why = useGet<Explanation>(owned ? deploymentPath(name, '/explain') : null, 2).value
  return (
    <>
      <div class="stats">
        {owned && <Stat label="Ready replicas" value={`${replicas.filter((r) => r.phase === 'ready').length} of ${deployment.max_replicas}`} />}
        <Stat label="Requests/s" value={number(rate('requests_per_s'))} />
        <Stat label="Tokens/s" value={number(rate('tokens_per_s'))} />
        <Stat label="Waiting" value={number(rate('waiting'), 0)} />
        {session.value?.currency && <Stat label="Cost now" value={`${money(rate('cost_per_h'))}/h`} />}
      </div>
      <Card title="Why this status, and this many replicas">
        <p>{deployment.reason || 'Nothing has happened yet.'}</p>
        {deployment.progress != null && (
          <p>
            <progress value={deployment.progress} max={1} aria-label="Fetching the base model" /> fetching the base model
          </p>
        )}
        {why && <p>{why.why}</p>}
        {why && (
          <ul class="plain">
            {why.would_change.map((each) => (
              <li>{each}</li>
            ))}
          </ul>
        )}
      </Card>
      {owned && <Replicas {...{ deployment, owned }} />}
      <Card title="Use it">
        <Copied name={name} adapter="" messages={[{ role: 'user', content: 'Tell me about the moon.' }]} parameters={{}} />
      </Card>
    </>
  )
}

// From when it was meant until it was ready, in seconds.
const started = ({ created_at, ready_at }: ReplicaRow) =>
  ready_at === null ? null : (Date.parse(ready_at) - Date.parse(created_at)) / 1000

function Replicas({ deployment }: TabProps) {
  const rows = useGet<{ data: ReplicaRow[] }>(deploymentPath(deployment.name, '/replicas'), 2).value?.data
  const living = rows?.filter((row) => row.state !== 'gone') ?? []
  const gone = rows?.filter((row) => row.state === 'gone').reverse().slice(0, 5) ?? []
  const reports = new Map(deployment.replicas.map((report) => [report.id, report]))
  return (
    <Card title="Replicas">
      {!living.length && (
        <Empty>{['stopped', 'errored'].includes(deployment.status) ? 'None runs.' : 'None runs: the next request starts one.'}</Empty>
      )}
      {!!(living.length + gone.length) && (
        <Table label="Replicas" head={['Replica', 'State', 'Place', 'Running', 'Adapters', 'Mixed steps', 'Started', 'Cold start']}>
          {[...living, ...gone].map((row) => {
            const report = reports.get(row.id)
            const split = report?.cold_start
            return (
              <tr key={row.id}>
                <td>{row.id}</td>
                <td title={row.reason}>
                  <Pill status={row.state} /> {row.reason && <small class="muted">{row.reason.split('. ')[0]}</small>}
                </td>
                <td>
                  {row.host}/{row.slot}
                </td>
                <td>{report?.running ?? '–'}</td>
                <td>{report?.adapters.length ?? '–'}</td>
                <td>{report ? `${report.mixed_steps} of ${report.steps}` : '–'}</td>
                <td>{ago(row.created_at)}</td>
                <td>{seconds(split ? Object.values(split).reduce((a, b) => a + b, 0) : started(row))}</td>
              </tr>
            )
          })}
        </Table>
      )}
    </Card>
  )
}
