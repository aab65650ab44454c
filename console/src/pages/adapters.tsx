import { Link } from 'wouter-preact'
import { useState } from 'preact/hooks'
import type { Repo } from '../api/types'
import { Empty, Loading, PageHead, Table } from '../parts/basics'
import { useGet } from '../parts/loading'
import { bytes, when } from '../parts/format'

export function Adapters() {
  const [only, setOnly] = useState('')
  const { value, error } = useGet<{ data: Repo[] }>('/api/v1/repos', 5)
  const repos = value?.data.filter((repo) => repo.name.includes(only.trim()))
  return (
    <>
      <PageHead title="Adapters">
        <input type="search" aria-label="Only repos with" placeholder="Only repos with …" value={only} onInput={(e) => setOnly(e.currentTarget.value)} />
      </PageHead>
      {!value && <Loading error={error} />}
      {repos?.length === 0 && (
        <Empty>
          {only ? 'No repo has that in its name.' : (
            <>
              No adapter yet. Register a PEFT folder: <code>loraplex adapters add REPO FOLDER</code>, import one from a
              hub: <code>loraplex adapters import hub:org/name --repo REPO</code>, or train one (Fine-tuning).
            </>
          )}
        </Empty>
      )}
      {!!repos?.length && (
        <Table label="Repos" head={['Repo', 'Versions', 'Newest', 'Base model', 'Rank', 'Size', 'Since']}>
          {repos.map((repo) => {
            const newest = repo.versions[repo.versions.length - 1]
            return (
              <tr key={repo.id}>
                <td>
                  <Link href={`/adapters/${repo.name}`}>{repo.name}</Link>
                </td>
                <td>{repo.versions.length}</td>
                <td>{newest?.ref ?? '–'}</td>
                <td class="muted">{newest?.base_model ?? '–'}</td>
                <td>{newest?.rank ?? '–'}</td>
                <td>{newest ? bytes(newest.size_bytes) : '–'}</td>
                <td class="nowrap">{when(repo.created_at)}</td>
              </tr>
            )
          })}
        </Table>
      )}
    </>
  )
}
