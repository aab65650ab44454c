// For whoever runs the platform: its processes, Redis, the fleet's places, dead letters.
import { call } from '../api/client'
import type { DeadLetter, System } from '../api/types'
import { act, confirm } from '../parts/asking'
import { Card, Empty, Loading, PageHead, Pill, Stat, Table } from '../parts/basics'
import { useGet } from '../parts/loading'
import { ago, bytes, number, seconds } from '../parts/format'

export function SystemPage() {
  const { value, error } = useGet<System>('/api/v1/system', 2)
  if (!value) return <Loading error={error} />
  const { redis } = value
  return (
    <>
      <PageHead title="System" />
      <div class="stats">
        <Stat label="Loraplex" value={value.version} />
        <Stat label="Leading scaler" value={value.leader || 'none!'} />
        <Stat label="Database" value={value.database} />
        <Stat label="Redis" value={redis.version} hint={`policy ${redis.policy}`} />
        <Stat label="Redis memory" value={`${bytes(redis.memory)}${redis.memory_most ? ` of ${bytes(redis.memory_most)}` : ''}`} />
        <Stat label="Redis commands/s" value={number(redis.commands_per_s, 0)} />
      </div>
      {redis.policy !== 'noeviction' && <p class="bad">Redis may evict jobs (maxmemory-policy {redis.policy}): set noeviction.</p>}
      {!redis.persistent && <p class="bad">Redis doesn't keep an AOF: a restart loses accepted requests.</p>}
      <Card title="Processes">
        <Table label="Processes" head={['Process', 'Replica', 'Metrics', 'Heard of']}>
          {value.processes.map((each) => (
            <tr key={each.metrics}>
              <td>{each.kind}</td>
              <td>{each.replica || '–'}</td>
              <td class="code">{each.metrics}</td>
              <td>{seconds(each.seen_s)} ago</td>
            </tr>
          ))}
        </Table>
      </Card>
      <Card title="Places of the fleet in use">
        {!value.places.length && <Empty>None: nothing costs anything now.</Empty>}
        {!!value.places.length && (
          <Table label="Places in use" head={['Host', 'Slot', 'By', 'Of', 'State', 'Since']}>
            {value.places.map((place) => (
              <tr key={place.id}>
                <td>{place.host}</td>
                <td>{place.slot}</td>
                <td>
                  {place.kind} {place.id}
                </td>
                <td>{place.deployment || '–'}</td>
                <td>
                  <Pill status={place.state} />
                </td>
                <td>{ago(place.since)}</td>
              </tr>
            ))}
          </Table>
        )}
      </Card>
      <DeadLetters />
    </>
  )
}

function DeadLetters() {
  const { value, reload } = useGet<{ data: DeadLetter[] }>('/api/v1/dead-letters', 5)
  const at = (request: string) => `/api/v1/dead-letters/${encodeURIComponent(request)}`
  return (
    <Card title="Dead letters">
      {value?.data.length === 0 && <Empty>None: no request has killed replicas.</Empty>}
      {!!value?.data.length && (
        <Table label="Dead letters" head={['Request', 'Deployment', 'Why', '']}>
          {value.data.map((letter) => (
            <tr key={letter.request}>
              <td class="code">{letter.request}</td>
              <td>{letter.deployment}</td>
              <td>{letter.error}</td>
              <td class="buttons">
                <button class="quiet" onClick={() => act('Retry', () => call('POST', `${at(letter.request)}/retry`)).then(reload)}>
                  Retry
                </button>
                <button
                  class="quiet"
                  onClick={() =>
                    confirm({
                      title: 'Drop the dead letter?',
                      text: `${letter.request} can't be tried again then.`,
                      verb: 'Drop',
                      run: async () => {
                        await call('DELETE', at(letter.request))
                        reload()
                      },
                    })
                  }
                >
                  Drop
                </button>
              </td>
            </tr>
          ))}
        </Table>
      )}
    </Card>
  )
}
