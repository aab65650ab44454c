// One stream of server-sent events for all that is live. It is opened anew, for ever, when it ends.
import { effect, signal } from '@preact/signals'
import { session } from './client'
import type { Columns, Deployment, DeploymentEvent, LiveJob } from './types'

export const deployments = signal<Deployment[] | null>(null)
export const jobs = signal<LiveJob[]>([])
export const events = signal<DeploymentEvent[]>([])
export type Rates = Record<string, Record<string, number | null>>
export const rates = signal<Rates | null>(null) // null: not known
// Of the latest five seconds; null: not known.
export const rateOf = (name: string, figure: string): number | null =>
  rates.value && (rates.value[name]?.[figure] ?? 0)
export const points = signal<{ of: string; columns: Columns } | null>(null)
export const connected = signal(false)
export const watched = signal<string | null>(null) // the deployment whose chart points come, too

const MOST_EVENTS = 500
const AGAIN_MS = 1000

let source: EventSource | null = null
let again: ReturnType<typeof setTimeout> | undefined

// Nobody looks at a hidden tab, and a browser has but six connections to a host.
export const hidden = signal(document.hidden)
document.addEventListener('visibilitychange', () => (hidden.value = document.hidden))

effect(() => {
  const open = !!session.value
  const of = watched.value
  const away = hidden.value
  close()
  if (!open) forget()
  else if (!away) connect(of)
})

function close() {
  clearTimeout(again)
  source?.close()
  source = null
}

function forget() {
  deployments.value = null
  events.value = []
  jobs.value = []
  rates.value = null
  points.value = null
  connected.value = false
}

function connect(of: string | null) {
  const query = of ? `?deployment=${encodeURIComponent(of)}` : ''
  const mine = (source = new EventSource(`/api/v1/live${query}`))
  const on = (name: string, take: (data: any) => void) =>
    mine.addEventListener(name, (event) => take(JSON.parse((event as MessageEvent).data)))
  mine.onopen = () => (connected.value = true)
  mine.onerror = () => {
    // The browser's own reconnection gives up where there was an answer that is no stream.
    connected.value = false
    mine.close()
    if (source === mine) again = setTimeout(() => checked(of), AGAIN_MS)
  }
  mine.addEventListener('ended', () => {
    mine.close()
    session.value = null
  })
  on('deployments', (data) => (deployments.value = data))
  on('changed', (data: Deployment[]) => {
    const changed = new Map(data.map((each) => [each.name, each]))
    const known = deployments.peek() ?? []
    deployments.value = known.map((each) => changed.get(each.name) ?? each)
  })
  on('jobs', (data) => (jobs.value = data))
  on('rates', (data) => (rates.value = data))
  on('points', (columns) => {
    if (of) points.value = { of, columns }
  })
  on('events', (fresh: DeploymentEvent[]) => {
    const known = new Set(events.peek().map((event) => event.id))
    const added = fresh.filter((event) => !known.has(event.id))
    events.value = [...events.peek(), ...added].slice(-MOST_EVENTS)
  })
}

async function checked(of: string | null) {
  const mine = source // another stream may be opened meanwhile
  try {
    const answer = await fetch('/console/session')
    if (answer.status === 401 || (answer.ok && (await answer.json()) === null)) {
      session.value = null
      return
    }
    if (!answer.ok) throw new Error()
    if (of && !(await fetch(`/api/v1/deployments/${encodeURIComponent(of)}`)).ok) of = null
    if (source === mine) connect(of)
  } catch {
    if (source === mine) again = setTimeout(() => checked(of), AGAIN_MS)
  }
}
