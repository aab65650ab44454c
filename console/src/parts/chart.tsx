// Time charts that share one window: drag to pan, wheel to zoom, double-click to follow again.
import { signal } from '@preact/signals'
import { useEffect, useMemo } from 'preact/hooks'
import uPlot from 'uplot'
import type { Columns } from '../api/types'
import { tick } from './format'
import { type Look, usePlot } from './plot'
import { latest, thinned } from './series'

export interface Line {
  name: string // of the column
  label: string
  color: number // of the palette
  dash?: boolean
  fill?: boolean
  steps?: boolean
}

const HEIGHT = 180
const SHORTEST_S = 30
const MOST_POINTS = 200 // in a chart's width
const PALETTE = ['--c0', '--c1', '--c2', '--c3']

// What all charts of a page show.
export class Window {
  private plots = new Set<uPlot>()
  private frame = 0
  private view: [number, number] | null = null // null: all there is
  private span: [number, number] = [0, 1]
  private step = 1 // seconds a point
  readonly factor = signal(1) // points that are drawn as two: see `thinned`

  add(plot: uPlot) {
    this.plots.add(plot)
  }

  remove(plot: uPlot) {
    this.plots.delete(plot)
  }

  extent(time: number[]) {
    this.span = [time[0] ?? 0, time[time.length - 1] ?? 1]
    this.step = (this.span[1] - this.span[0]) / Math.max(time.length - 1, 1) || 1
    this.thin()
  }

  // From what is shown, in steps of two: a pan changes nothing, and few zooms do.
  private thin() {
    const [min, max] = this.shown
    const points = (max - min) / this.step
    this.factor.value = points > MOST_POINTS ? 2 ** Math.ceil(Math.log2((2 * points) / MOST_POINTS)) : 1
  }

  get shown(): [number, number] {
    return this.view ?? this.span
  }

  set(min: number, max: number) {
    const [first, last] = this.span
    const width = Math.min(Math.max(max - min, SHORTEST_S), last - first)
    min = Math.min(Math.max(min, first), last - width)
    this.view = [min, min + width]
    this.thin()
    this.draw()
  }

  pan(seconds: number) {
    const [min, max] = this.shown
    this.set(min + seconds, max + seconds)
  }

  zoom(factor: number, at?: number) {
    const [min, max] = this.shown
    const center = at ?? (min + max) / 2
    this.set(center - (center - min) * factor, center + (max - center) * factor)
  }

  follow() {
    this.view = null
    this.thin()
    this.draw()
  }

  private draw() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0
      const [min, max] = this.shown
      for (const plot of this.plots) plot.setScale('x', { min, max })
    })
  }
}

interface Props {
  title: string
  unit: (value: number | null) => string
  lines: Line[]
  columns: Columns
  window: Window
  most?: number // of the axis, at least
  whole?: boolean // numbers
}

const WHOLE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]

export function Chart({ title, unit, lines, columns, window, most = 0, whole = false }: Props) {
  const factor = window.factor.value
  const data = useMemo(
    () => thinned(columns, lines.map((line) => line.name), factor) as uPlot.AlignedData,
    [columns, lines, factor],
  )
  const { box, plot } = usePlot(HEIGHT, data, (look) => options(unit, lines, window, most, whole, look), (made) => {
    window.add(made)
    const release = gestures(made, window)
    return () => {
      release()
      window.remove(made)
    }
  })
  useEffect(() => {
    window.extent(columns.time)
    plot.current?.setData(data, false)
    const [min, max] = window.shown
    plot.current?.setScale('x', { min, max })
  }, [data])
  const now = lines.map((line) => `${line.label} ${unit(latest(columns[line.name]))}`).join(', ')
  return (
    <figure class="card chart" aria-label={`${title}: ${now}`}>
      <figcaption>
        <h3>{title}</h3>
        <span class="chart-now">
          {lines.map((line) => (
            <span class="key">
              <i class={`swatch s${line.color}`} aria-hidden="true" />
              {line.label} <b>{unit(latest(columns[line.name]))}</b>
            </span>
          ))}
        </span>
      </figcaption>
      <div ref={box} class="plot" data-lines={lines.map((line) => line.name).join(' ')} />
    </figure>
  )
}

function options(
  unit: Props['unit'],
  lines: Line[],
  window: Window,
  most: number,
  whole: boolean,
  { color, x, y }: Look,
): Omit<uPlot.Options, 'width' | 'height'> {
  return {
    legend: { show: false },
    cursor: { sync: { key: 'charts' }, drag: { x: false, y: false, setScale: false } },
    scales: {
      x: { time: true, auto: false, range: (_, min, max) => [min, max] },
      y: { range: (_, __, max) => [0, Math.max(most, (max ?? 0) * 1.1) || 1] },
    },
    axes: [
      { ...x, size: 30, values: TIMES },
      { ...y, size: 58, ...(whole && { incrs: WHOLE }), values: (_, ticks) => ticks.map((value) => unit(value)) },
    ],
    series: [
      {},
      ...lines.map((line) => ({
        label: line.label,
        stroke: color(PALETTE[line.color]!),
        fill: line.fill ? `${color(PALETTE[line.color]!)}22` : undefined,
        width: 1,
        dash: line.dash ? [4, 3] : undefined,
        points: { show: true, size: 4, filter: alone },
        paths: line.steps ? uPlot.paths.stepped!({ align: 1 }) : undefined,
      })),
    ],
    hooks: { ready: [() => window.shown], setCursor: [tip(unit, lines)] },
  }
}

// A value between gaps is no line: it is shown as a point.
const alone: uPlot.Series.Points.Filter = (plot, series) => {
  const values = plot.data[series]!
  const [first, last] = plot.series[0]!.idxs!
  const found = []
  for (let i = first; i <= last; i++) {
    if (values[i] != null && values[i - 1] == null && values[i + 1] == null) found.push(i)
  }
  return found
}

// 24 hours, in the reader's zone.
const TIMES: uPlot.Axis.DynamicValues = (_, ticks, __, ___, step) =>
  ticks.map((at) => tick(at, step >= 86400 ? 'day' : step < 60 ? 'second' : 'minute'))

// The values under the pointer, in a box beside it.
function tip(unit: Props['unit'], lines: Line[]) {
  return (plot: uPlot) => {
    let box = plot.over.querySelector<HTMLElement>('.tip')
    const index = plot.cursor.idx
    const left = plot.cursor.left ?? -1
    if (index == null || left < 0) {
      box?.remove()
      return
    }
    if (!box) {
      box = document.createElement('div')
      box.className = 'tip'
      plot.over.append(box)
    }
    const at = tick(plot.data[0][index]!, 'second')
    const values = lines.map((line, i) => `${line.label} ${unit(plot.data[i + 1]![index] ?? null)}`)
    box.textContent = [at, ...values].join('\n')
    // Nothing is measured here: that would lay out the page again for each chart.
    const width = plot.bbox.width / devicePixelRatio
    const right = left > width / 2
    box.style.left = right ? '' : `${left + 10}px`
    box.style.right = right ? `${width - left + 10}px` : ''
  }
}

function gestures(plot: uPlot, window: Window): () => void {
  const over = plot.over
  let from: number | null = null
  const down = (event: PointerEvent) => {
    from = event.clientX
    over.setPointerCapture(event.pointerId)
  }
  const move = (event: PointerEvent) => {
    if (from === null) return
    const [min, max] = window.shown
    window.pan(((from - event.clientX) / over.clientWidth) * (max - min))
    from = event.clientX
  }
  const up = () => (from = null)
  const wheel = (event: WheelEvent) => {
    if (!event.ctrlKey && !event.shiftKey && Math.abs(event.deltaX) < Math.abs(event.deltaY)) {
      event.preventDefault()
      window.zoom(event.deltaY > 0 ? 1.25 : 0.8, plot.posToVal(event.offsetX, 'x'))
    }
  }
  const follow = () => window.follow()
  over.addEventListener('pointerdown', down)
  over.addEventListener('pointermove', move)
  over.addEventListener('pointerup', up)
  over.addEventListener('wheel', wheel, { passive: false })
  over.addEventListener('dblclick', follow)
  return () => {
    over.removeEventListener('pointerdown', down)
    over.removeEventListener('pointermove', move)
    over.removeEventListener('pointerup', up)
    over.removeEventListener('wheel', wheel)
    over.removeEventListener('dblclick', follow)
  }
}
