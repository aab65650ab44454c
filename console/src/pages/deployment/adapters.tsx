import { Link } from 'wouter-preact'
import type { Adapter } from '../../api/types'
import { Empty, Loading, Table } from '../../parts/basics'
import { useGet } from '../../parts/loading'
import { bytes } from '../../parts/format'
import type { TabProps } from './page'

export function AdaptersTab({ deployment }: TabProps) {
  const { value, error } = useGet<{ data: Adapter[] }>('/api/v1/adapters', 3)
  if (!value) return <Loading error={error} />
  const mine = value.data.filter((each) => each.base_model === deployment.base_model && !each.archived)
  if (!mine.length)
    return (
      <Empty>
        No adapter for {deployment.base_model} is registered. <code>loraplex adapters add REPO FOLDER</code>
      </Empty>
    )
  return (
    <Table label="Adapters" head={['Adapter', 'Rank', 'Size', 'Where', '']}>
      {mine.map((each) => {
        const here = (each.places ?? []).filter((place) => place.deployment === deployment.name)
        return (
          <tr key={each.ref}>
            <td>
              <Link href={`/adapters/${each.repo}`}>{each.ref}</Link>
            </td>
            <td>{each.rank}</td>
            <td>{bytes(each.size_bytes)}</td>
            <td>{here.length ? here.map((place) => `${place.tier} at ${place.replica}${place.reason && `: ${place.reason}`}`).join(', ') : 'on disk'}</td>
            <td>
              <Link href={`/deployments/${deployment.name}/playground?adapter=${encodeURIComponent(each.ref)}`}>Try it</Link>
            </td>
          </tr>
        )
      })}
    </Table>
  )
}
