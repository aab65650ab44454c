// A repo of adapters: its versions, how they do, and the aliases that point to them.
import { useState } from 'preact/hooks'
import { useLocation } from 'wouter-preact'
import { call, may } from '../api/client'
import type { Alias, Repo, VersionFigures } from '../api/types'
import { act, confirm, say } from '../parts/asking'
import { Card, Empty, Loading, PageHead, Table } from '../parts/basics'
import { useGet } from '../parts/loading'
import { Field, FormDialog, typed } from '../parts/forms'
import { bytes, number, seconds, when } from '../parts/format'

export function RepoPage({ name }: { name: string }) {
  const [, go] = useLocation()
  const [setting, setSetting] = useState(false)
  const at = `/api/v1/repos/${encodeURIComponent(name)}`
  const { value: repo, error, reload } = useGet<Repo>(at, 5)
  const figures = useGet<{ data: VersionFigures[] }>(`${at}/figures`, 5).value?.data ?? []
  const aliases = useGet<{ data: Alias[] }>(`${at}/aliases`, 5)
  if (!repo) return <Loading error={error} />
  const of = new Map(figures.map((each) => [each.version, each]))
  const remove = (ref: string) =>
    confirm({
      title: `Delete ${ref}?`,
      text: 'Requests for it are refused from now on; its number never means something else.',
      verb: 'Delete',
      run: async () => {
        await call('DELETE', `/api/v1/adapters/${ref}`)
        reload()
      },
    })
  const removeAlias = (ref: string) =>
    confirm({
      title: `Delete ${ref}?`,
      text: 'Requests for it are refused from now on; its versions stay.',
      verb: 'Delete',
      run: async () => {
        await call('DELETE', `${at}/aliases/${ref.split('@')[1]}`)
        aliases.reload()
      },
    })
  return (
    <>
      <PageHead under={['/adapters', 'Adapters']} title={name} subtitle={repo.description}>
        {may('adapters') && (
          <button
            class="danger"
            onClick={() =>
              confirm({
                title: `Delete ${name}?`,
                text: 'The repo, all its versions and its aliases.',
                verb: 'Delete',
                typed: name,
                run: async () => {
                  await call('DELETE', at)
                  go('/adapters')
                },
              })
            }
          >
            Delete
          </button>
        )}
      </PageHead>
      <Card title="Versions">
        {!repo.versions.length && <Empty>No version yet.</Empty>}
        {!!repo.versions.length && (
          <Table label="Versions" head={['Version', 'Answers', 'Failed', 'First token p50', 'Tokens/s p50', 'Rank', 'Size', 'Digest', 'Since', '']}>
            {[...repo.versions].reverse().map((version) => {
              const how = of.get(version.ref)
              return (
                <tr key={version.ref}>
                  <td>
                    {version.ref}
                    {version.archived && <span class="tag">archived</span>}
                    {Object.entries(version.tags).map(([key, value]) => (
                      <span class="tag">
                        {key}={value}
                      </span>
                    ))}
                  </td>
                  <td>{number(how?.answers ?? 0, 0)}</td>
                  <td>{number(how?.failed ?? 0, 0)}</td>
                  <td>{seconds(how?.first_token_p50_s)}</td>
                  <td>{number(how?.tokens_per_s_p50)}</td>
                  <td>{version.rank}</td>
                  <td>{bytes(version.size_bytes)}</td>
                  <td class="code" title={version.digest}>
                    {version.digest.slice(0, 10)}
                  </td>
                  <td class="nowrap">{when(version.created_at)}</td>
                  <td>
                    {may('adapters') && (
                      <button class="quiet" onClick={() => remove(version.ref)} aria-label={`Delete ${version.ref}`}>
                        Delete
                      </button>
                    )}
                  </td>
                </tr>
              )
            })}
          </Table>
        )}
      </Card>
      <Card title="Aliases" aside={may('adapters') && <button onClick={() => setSetting(true)}>Set an alias</button>}>
        {aliases.value?.data.length === 0 && (
          <Empty>
            None. Clients ask for <code>{name}@prod</code>; what that is you set, and change at once.
          </Empty>
        )}
        {!!aliases.value?.data.length && (
          <Table label="Aliases" head={['Alias', 'Points to', '']}>
            {aliases.value.data.map((alias) => (
              <tr key={alias.ref}>
                <td>{alias.ref}</td>
                <td>
                  {shares(alias.versions)}
                  {alias.shadow !== null && <span class="tag">shadowed by {alias.shadow}</span>}
                </td>
                <td>
                  {may('adapters') && (
                    <span class="buttons">
                      {(['promote', 'rollback'] as const).map((verb) => (
                        <button
                          class="quiet"
                          onClick={() => act(verb, () => call('POST', `${at}/aliases/${alias.ref.split('@')[1]}/${verb}`)).then(aliases.reload)}
                        >
                          {verb}
                        </button>
                      ))}
                      <button class="quiet" onClick={() => removeAlias(alias.ref)} aria-label={`Delete ${alias.ref}`}>
                        Delete
                      </button>
                    </span>
                  )}
                </td>
              </tr>
            ))}
          </Table>
        )}
      </Card>
      {setting && <SetAlias {...{ name, at }} onClose={() => (setSetting(false), aliases.reload())} />}
    </>
  )
}

function shares(versions: Alias['versions']): string {
  const all = Object.values(versions).reduce((sum, weight) => sum + weight, 0)
  return Object.entries(versions)
    .map(([version, weight]) => `${version} (${number((100 * weight) / all, 0)} %)`)
    .join(', ')
}

function SetAlias(props: { name: string; at: string; onClose: () => void }) {
  const submit = async (given: FormData) => {
    const alias = encodeURIComponent(typed(given, 'alias'))
    const versions: Record<string, number> = {}
    for (const each of typed(given, 'versions').split(/\s+/)) {
      const [version, weight = '1'] = each.split('=')
      if (version! in versions) throw new Error(`Version ${version} is there twice.`)
      versions[version!] = Number(weight)
    }
    await call('PUT', `${props.at}/aliases/${alias}`, { versions })
    say(`${props.name}@${alias} is set.`)
    props.onClose()
  }
  return (
    <FormDialog title="Set an alias" verb="Set" onClose={props.onClose} submit={submit}>
      <Field label="Alias" name="alias" required placeholder="prod" autocomplete="off" hint={`Clients ask for ${props.name}@prod.`} />
      <Field label="Versions" name="versions" required placeholder="1=90 2=10" autocomplete="off" hint="A number, or several with their shares of the traffic." />
    </FormDialog>
  )
}
