import { deploymentPath } from '../../api/client'
import { events } from '../../api/live'
import type { DeploymentEvent } from '../../api/types'
import { Empty, Loading, Pill, Table } from '../../parts/basics'
import { useGet } from '../../parts/loading'
import { when } from '../../parts/format'
import type { TabProps } from './page'

export function Events({ deployment: { name, created_at } }: TabProps) {
  const { value, error } = useGet<{ data: DeploymentEvent[] }>(deploymentPath(name, '/events'))
  if (!value) return <Loading error={error} />
  const known = new Map(value.data.map((event) => [event.id, event]))
  for (const event of events.value) {
    const itsOwn = event.deployment === name && event.at >= created_at // not of a deleted namesake
    if (itsOwn) known.set(event.id, event)
  }
  const shown = [...known.values()].sort((a, b) => b.id - a.id)
  if (!shown.length) return <Empty>Nothing has happened yet.</Empty>
  return (
    <Table label="Events" head={['When', 'What', 'Status', 'Why', 'By']}>
      {shown.map((event) => (
        <tr key={event.id}>
          <td class="nowrap">{when(event.at)}</td>
          <td>{event.kind.replaceAll('_', ' ')}</td>
          <td class="nowrap">
            {event.from_status !== event.to_status && (
              <>
                {event.from_status} → <Pill status={event.to_status} />
              </>
            )}
          </td>
          <td title={inputs(event)}>{event.reason}</td>
          <td class="muted">{event.actor}</td>
        </tr>
      ))}
    </Table>
  )
}

const inputs = (event: DeploymentEvent) =>
  Object.entries(event.inputs ?? {})
    .map(([name, value]) => `${name} ${value}`)
    .join('\n')
