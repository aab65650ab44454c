// A uPlot in a box: as wide as it, made anew when the theme changes.
import { useEffect, useRef } from 'preact/hooks'
import uPlot from 'uplot'
import 'uplot/dist/uPlot.min.css'
import { theme } from './theme'

const FONT = '11px system-ui, sans-serif'

export interface Look {
  color: (name: string) => string // of a CSS variable
  x: uPlot.Axis
  y: uPlot.Axis
}

// `options`: all but the size. `made` is called with each new plot, and what it returns when that
// one goes.
export function usePlot(
  height: number,
  data: uPlot.AlignedData,
  options: (look: Look) => Omit<uPlot.Options, 'width' | 'height'>,
  made?: (plot: uPlot) => () => void,
) {
  const box = useRef<HTMLDivElement>(null)
  const plot = useRef<uPlot | null>(null)
  const shown = theme.value
  useEffect(() => {
    const at = box.current!
    const size = (width: number) => ({ width: Math.floor(width), height })
    const drawn = new uPlot({ ...size(at.clientWidth), ...options(look(at)) }, data, at)
    plot.current = drawn
    const end = made?.(drawn)
    const resized = new ResizeObserver(([entry]) => drawn.setSize(size(entry!.contentRect.width)))
    resized.observe(at)
    return () => {
      end?.()
      resized.disconnect()
      drawn.destroy()
    }
  }, [shown])
  return { box, plot }
}

function look(box: HTMLElement): Look {
  const style = getComputedStyle(box)
  const color = (name: string) => style.getPropertyValue(name).trim()
  const grid = { stroke: color('--grid'), width: 1 }
  const axis = { stroke: color('--muted'), font: FONT }
  return {
    color,
    x: { ...axis, grid: { show: false }, ticks: grid },
    y: { ...axis, grid, ticks: { show: false } },
  }
}
