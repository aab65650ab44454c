// One deployment, in tabs.
import { useEffect } from 'preact/hooks'
import { Link, useLocation } from 'wouter-preact'
import { call, deploymentPath, may, owns } from '../../api/client'
import { deployments, watched } from '../../api/live'
import type { Deployment } from '../../api/types'
import { act, confirm } from '../../parts/asking'
import { Empty, PageHead, Pill } from '../../parts/basics'
import { AdaptersTab } from './adapters'
import { Configuration } from './configuration'
import { Events } from './events'
import { Health } from './health'
import { Logs } from './logs'
import { Overview } from './overview'
import { Playground } from './playground'

export interface TabProps {
  deployment: Deployment
  owned: boolean
}

const TABS: [string, string, (props: TabProps) => preact.JSX.Element, boolean][] = [
  ['overview', 'Overview', Overview, false],
  ['health', 'Health', Health, true],
  ['adapters', 'Adapters', AdaptersTab, false],
  ['playground', 'Playground', Playground, false],
  ['events', 'Events', Events, true],
  ['configuration', 'Configuration', Configuration, true],
  ['logs', 'Logs', Logs, true],
]

export function DeploymentPage({ name, tab }: { name: string; tab: string }) {
  const found = deployments.value?.find((each) => each.name === name)
  const owned = may('deployments') && (!found || owns(found))
  useEffect(() => {
    if (found && owned) watched.value = name
  }, [name, !!found, owned])
  useEffect(() => () => void (watched.value = null), [])
  if (deployments.value === null) return <Empty>Loading …</Empty>
  if (!found)
    return (
      <Empty>
        There is no deployment {name}. <Link href="/deployments">All deployments</Link>
      </Empty>
    )
  const tabs = TABS.filter(([, , , own]) => owned || !own)
  const shown = tabs.find(([id]) => id === tab) ?? tabs[0]!
  const Shown = shown[2]
  return (
    <>
      <PageHead
        under={['/deployments', 'Deployments']}
        subtitle={found.base_model}
        title={
          <>
            {name} <Pill status={found.status} />
          </>
        }
      >
        {owned && <Actions deployment={found} />}
      </PageHead>
      <nav class="tabs" aria-label="Of the deployment">
        {tabs.map(([id, title]) => (
          <Link href={`/deployments/${name}/${id}`} aria-current={id === shown[0] ? 'page' : undefined}>
            {title}
          </Link>
        ))}
      </nav>
      <Shown deployment={found} owned={owned} />
    </>
  )
}

function Actions({ deployment: { name, status } }: { deployment: Deployment }) {
  const [, go] = useLocation()
  const move = (verb: string) => call('POST', deploymentPath(name, `/${verb}`))
  const stopped = status === 'stopped'
  return (
    <div class="buttons">
      {(stopped || status === 'errored') && (
        <button onClick={() => act('Start', () => move('start'))}>Start</button>
      )}
      {!stopped && (
        <button
          onClick={() =>
            confirm({
              title: `Stop ${name}?`,
              text: 'It takes no more requests; those that wait are answered with an error, those that run finish.',
              verb: 'Stop',
              run: () => move('stop'),
            })
          }
        >
          Stop
        </button>
      )}
      <button
        class="danger"
        onClick={() =>
          confirm({
            title: `Delete ${name}?`,
            text: 'Its endpoint is gone at once, and its name free. Adapters and usage stay.',
            verb: 'Delete',
            typed: name,
            run: async () => {
              await call('DELETE', deploymentPath(name))
              go('/deployments')
            },
          })
        }
      >
        Delete
      </button>
    </div>
  )
}
