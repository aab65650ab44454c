// Losses by step.
import { useEffect, useRef } from 'preact/hooks'
import uPlot from 'uplot'
import type { TrainingEvent } from '../api/types'
import { theme } from './theme'

const HEIGHT = 260

export function LossChart({ events }: { events: TrainingEvent[] }) {
  const box = useRef<HTMLDivElement>(null)
  const plot = useRef<uPlot | null>(null)
  const data = aligned(events)
  const shown = theme.value
  useEffect(() => {
    const style = getComputedStyle(box.current!)
    const color = (name: string) => style.getPropertyValue(name).trim()
    const font = '11px system-ui, sans-serif'
    const grid = { stroke: color('--grid'), width: 1 }
    const made = new uPlot(
      {
        width: box.current!.clientWidth,
        height: HEIGHT,
        scales: { x: { time: false } },
        axes: [
          { stroke: color('--muted'), font, grid: { show: false }, ticks: grid },
          { stroke: color('--muted'), font, grid, ticks: { show: false } },
        ],
        series: [
          { label: 'step' },
          { label: 'training', stroke: color('--c0'), width: 1.5, points: { show: false } },
          { label: 'validation', stroke: color('--c1'), width: 1.5, spanGaps: true, points: { show: true, size: 6 } },
        ],
      },
      data,
      box.current!,
    )
    plot.current = made
    const resized = new ResizeObserver(([entry]) =>
      made.setSize({ width: Math.floor(entry!.contentRect.width), height: HEIGHT }),
    )
    resized.observe(box.current!)
    return () => {
      resized.disconnect()
      made.destroy()
    }
  }, [shown])
  useEffect(() => plot.current?.setData(data), [events])
  return <div ref={box} class="plot" />
}

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
