// Losses by step.
import { useEffect } from 'preact/hooks'
import type uPlot from 'uplot'
import type { TrainingEvent } from '../api/types'
import { type Look, usePlot } from './plot'

const HEIGHT = 260

export function LossChart({ events }: { events: TrainingEvent[] }) {
  const data = aligned(events)
  const { box, plot } = usePlot(HEIGHT, data, options)
  useEffect(() => plot.current?.setData(data), [events])
  return <div ref={box} class="plot" />
}

const options = ({ color, x, y }: Look) => ({
  legend: { live: false },
  scales: { x: { time: false } },
  axes: [x, y],
  series: [
    { label: 'step' },
    { label: 'training', stroke: color('--c0'), width: 1.5, points: { show: false } },
    { label: 'validation', stroke: color('--c1'), width: 1.5, spanGaps: true, points: { show: true, size: 6 } },
  ],
})

function aligned(events: TrainingEvent[]): uPlot.AlignedData {
  const at = new Map<number, { train: number | null; valid: number | null }>()
  for (const { data } of events) {
    const row = at.get(data!.step!) ?? { train: null, valid: null }
    row.train = data!.train_loss ?? row.train
    row.valid = data!.valid_loss ?? data!.full_valid_loss ?? row.valid
    at.set(data!.step!, row)
  }
  const steps = [...at.keys()].sort((a, b) => a - b)
  return [steps, steps.map((s) => at.get(s)!.train), steps.map((s) => at.get(s)!.valid)]
}
