// What happened over time: the product's six charts, the time to the first token, and the cost.
import { useEffect, useMemo, useRef, useState } from 'preact/hooks'
import { deploymentPath, get, session } from '../../api/client'
import { points } from '../../api/live'
import type { Charts, Columns } from '../../api/types'
import { Chart, type Line, Window } from '../../parts/chart'
import { Empty } from '../../parts/basics'
import { Select } from '../../parts/forms'
import { money, number, percent, seconds } from '../../parts/format'
import { gapBefore, latest, merged } from '../../parts/series'
import type { TabProps } from './page'

const RANGES: [string, string][] = [
  ['15m', '15 minutes'],
  ['1h', '1 hour'],
  ['6h', '6 hours'],
  ['24h', '24 hours'],
  ['7d', '7 days'],
]
const COARSE_AGAIN_MS = 30_000

const waits = (name: string): Line[] => [
  { name: `${name}_p50`, label: 'p50', color: 0 },
  { name: `${name}_p95`, label: 'p95', color: 1 },
  { name: `${name}_mean`, label: 'mean', color: 2, dash: true },
]

interface Shown {
  title: string
  unit: (value: number | null) => string
  lines: Line[]
  most?: number
  whole?: boolean
}

const CHARTS: Shown[] = [
  {
    title: 'Requests per second',
    unit: (v) => number(v, 2),
    lines: [
      { name: 'requests_per_s', label: 'ended', color: 0, fill: true },
      { name: 'failed_per_s', label: 'failed', color: 3 },
    ],
  },
  {
    title: 'Throughput (generated tokens per second)',
    unit: (v) => number(v),
    lines: [{ name: 'tokens_per_s', label: 'tokens/s', color: 0, fill: true }],
  },
  { title: 'Inference time', unit: seconds, lines: waits('inference_s') },
  { title: 'Queue duration', unit: seconds, lines: waits('queue_s') },
  {
    title: 'Replicas',
    unit: (v) => number(v),
    lines: [
      { name: 'ready', label: 'ready', color: 0, fill: true, steps: true },
      { name: 'starting', label: 'starting', color: 1, steps: true },
      { name: 'draining', label: 'draining', color: 2, steps: true },
    ],
    most: 1,
    whole: true,
  },
  {
    title: 'GPU utilization',
    unit: percent,
    lines: [
      { name: 'utilization', label: 'busy', color: 0, fill: true },
      { name: 'kv_used', label: 'KV cache', color: 2 },
    ],
    most: 1,
  },
  { title: 'Time to first token', unit: seconds, lines: waits('first_token_s') },
  {
    title: 'Cost per hour',
    unit: money,
    lines: [{ name: 'cost_per_h', label: 'per hour', color: 1, fill: true }],
  },
]

export function Health({ deployment }: TabProps) {
  const [range, setRange] = useState('15m')
  const [charts, setCharts] = useState<Charts | null>(null)
  const [error, setError] = useState('')
  const window = useMemo(() => new Window(), [range])
  const path = deploymentPath(deployment.name, `/charts?range=${range}`)
  useEffect(() => {
    let current = true
    const load = () =>
      get<Charts>(path).then(
        (found) => current && (setCharts(found), setError('')),
        (failed: Error) => current && setError(failed.message),
      )
    setCharts(null)
    catching.current = null
    load()
    const timer = range === '7d' ? setInterval(load, COARSE_AGAIN_MS) : undefined
    return () => {
      current = false
      clearInterval(timer)
    }
  }, [path])
  const fresh = points.value
  const catching = useRef<string | null>(null) // the path whose gap is being loaded
  useEffect(() => {
    if (!charts || fresh?.of !== deployment.name || catching.current === path) return
    const since = gapBefore(charts, fresh.columns)
    const add = (columns: Columns) => setCharts((known) => known && merged(known, columns))
    if (since === null) {
      add(fresh.columns)
      return
    }
    catching.current = path // the stream was away
    get<Charts>(`${path}&since=${since}`)
      .then((missed) => catching.current === path && add(missed.columns), () => {})
      .finally(() => (catching.current = catching.current === path ? null : catching.current))
  }, [fresh])
  useEffect(() => {
    Object.assign(globalThis, { loraplexCharts: charts }) // for whoever wants the numbers: tests do
  }, [charts])
  const cuda = latest(charts?.columns.on_gpu) === 1
  const shown = CHARTS.filter((each) => each.title !== 'Cost per hour' || session.value?.currency)
  return (
    <>
      <div class="row toolbar">
        <Select label="Range" value={range} options={RANGES} onChange={setRange} />
        <div class="buttons" role="group" aria-label="Time window">
          <button onClick={() => panned(window, -0.25)}>← Earlier</button>
          <button onClick={() => panned(window, 0.25)}>Later →</button>
          <button onClick={() => window.zoom(0.5)}>Zoom in</button>
          <button onClick={() => window.zoom(2)}>Zoom out</button>
          <button onClick={() => window.follow()}>Follow</button>
        </div>
      </div>
      {error && <p class="bad">{error}</p>}
      {!charts && !error && <Empty>Loading …</Empty>}
      {charts && !charts.columns.requests_per_s?.some((value) => value !== null) && (
        <Empty>Nothing was seen yet: the first points come within ten seconds.</Empty>
      )}
      {charts && (
        <div class="charts">
          {shown.map((each) => (
            <Chart
              key={each.title}
              {...each}
              title={each.title === 'GPU utilization' && !cuda ? 'CPU utilization (no GPU here)' : each.title}
              columns={charts.columns}
              window={window}
            />
          ))}
        </div>
      )}
    </>
  )
}

function panned(window: Window, share: number) {
  const [min, max] = window.shown
  window.pan((max - min) * share)
}
