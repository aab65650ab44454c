import { useState } from 'preact/hooks'
import { session } from '../api/client'
import type { UsageLine } from '../api/types'
import { Empty, Loading, PageHead, Stat, Table } from '../parts/basics'
import { Select } from '../parts/forms'
import { useGet } from '../parts/loading'
import { money, number, seconds } from '../parts/format'

const SINCE: [string, string][] = [
  ['1', 'Today'],
  ['7', '7 days'],
  ['30', '30 days'],
  ['365', 'A year'],
]
const BY: [string, string][] = [
  ['deployment', 'Deployment'],
  ['adapter', 'Adapter'],
  ['key', 'Key'],
  ['status', 'Status'],
]

export function Usage() {
  const [days, setDays] = useState('7')
  const [by, setBy] = useState('deployment')
  const since = new Date()
  since.setUTCHours(0, 0, 0, 0)
  since.setUTCDate(since.getUTCDate() - Number(days) + 1)
  const of = BY.find(([value]) => value === by)![1]
  const query = new URLSearchParams({ by, since: since.toISOString() })
  const { value, error } = useGet<{ data: UsageLine[] }>(`/api/v1/usage?${query}`, 5)
  const lines = value?.data ?? []
  const sum = (name: 'requests' | 'completion_tokens' | 'prompt_tokens' | 'replica_s' | 'cost') =>
    lines.reduce((total, line) => total + line[name], 0)
  const csv = `/api/v1/usage?${query}&format=csv`
  const most = Math.max(...lines.map((line) => line.completion_tokens), 1)
  return (
    <>
      <PageHead title="Usage and cost">
        <a class="button" href={csv} download="usage.csv">
          As CSV
        </a>
      </PageHead>
      <div class="row toolbar">
        <Select label="Since" value={days} options={SINCE} onChange={setDays} />
        <Select label="By" value={by} options={BY} onChange={setBy} />
      </div>
      {!value && <Loading error={error} />}
      {value && (
        <div class="stats">
          <Stat label="Requests" value={number(sum('requests'), 0)} />
          <Stat label="Prompt tokens" value={number(sum('prompt_tokens'), 0)} />
          <Stat label="Generated tokens" value={number(sum('completion_tokens'), 0)} />
          <Stat label="Replica time" value={seconds(sum('replica_s'))} />
          <Stat label="Cost" value={session.value?.currency ? money(sum('cost')) : 'no prices set'} />
        </div>
      )}
      {value && !lines.length && <Empty>Nothing was used since then.</Empty>}
      {!!lines.length && (
        <Table label="Usage" head={[of, 'Requests', 'Failed', 'Prompt', 'Generated', 'Share', 'Queue', 'First token', 'Duration', 'Replica time', 'Cost']}>
          {lines.map((line) => {
            const name = line[by as 'deployment' | 'adapter' | 'key']
            return (
              <tr key={name}>
                <td>{name || (by === 'adapter' ? 'base model' : 'idle')}</td>
                <td>{number(line.requests, 0)}</td>
                <td>{number(line.failed, 0)}</td>
                <td>{number(line.prompt_tokens, 0)}</td>
                <td>{number(line.completion_tokens, 0)}</td>
                <td>
                  <meter min={0} max={most} value={line.completion_tokens} aria-label="Share of generated tokens" />
                </td>
                <td>{seconds(line.mean_queue_s)}</td>
                <td>{seconds(line.mean_first_token_s)}</td>
                <td>{seconds(line.mean_duration_s)}</td>
                <td>{seconds(line.replica_s)}</td>
                <td>{session.value?.currency ? money(line.cost) : '–'}</td>
              </tr>
            )
          })}
        </Table>
      )}
    </>
  )
}
