// Chart columns: what is loaded, with what has come since.
import type { Charts, Columns } from '../api/types'

// The newer columns replace what they overlap, and what is older than the range goes.
export function merged(charts: Charts, fresh: Columns): Charts {
  const { step_s, range_s, columns } = charts
  const first = fresh.time[0]
  if (first === undefined || step_s !== stepOf(fresh, step_s)) return charts
  const keep = lowerBound(columns.time, first)
  const last = fresh.time[fresh.time.length - 1]!
  const from = lowerBound(columns.time, last - range_s)
  const next: Record<string, (number | null)[]> = {}
  for (const [name, values] of Object.entries(columns)) {
    next[name] = [...values.slice(from, keep), ...(fresh[name] ?? [])]
  }
  return { step_s, range_s, columns: next as Columns }
}

// From when on points are missing between what is loaded and what has come; null: none are.
export function gapBefore({ step_s, columns: { time } }: Charts, fresh: Columns): number | null {
  const last = time[time.length - 1]
  const first = fresh.time[0]
  if (last === undefined || first === undefined || step_s !== stepOf(fresh, step_s)) return null
  return first > last + step_s ? last : null
}

function stepOf(columns: Columns, otherwise: number): number {
  const [a, b] = columns.time
  return a === undefined || b === undefined ? otherwise : b - a
}

export function lowerBound(sorted: number[], value: number): number {
  let low = 0
  let high = sorted.length
  while (low < high) {
    const middle = (low + high) >> 1
    if (sorted[middle]! < value) low = middle + 1
    else high = middle
  }
  return low
}

export function latest(values: (number | null)[] | undefined): number | null {
  for (let i = (values?.length ?? 0) - 1; i >= 0; i--) {
    if (values![i] != null) return values![i]!
  }
  return null
}

// Fewer points that look the same: of each `factor` the smallest and the largest value, in their
// order. All columns keep one time axis.
export function thinned(columns: Columns, names: string[], factor: number): (number | null)[][] {
  const { time } = columns
  if (factor <= 1) return [time, ...names.map((name) => columns[name] ?? [])]
  const half = factor >> 1
  const times: number[] = []
  for (let at = 0; at < time.length; at += factor) {
    times.push(time[at]!, time[Math.min(at + half, time.length - 1)]!)
  }
  return [times, ...names.map((name) => extremes(columns[name] ?? [], factor))]
}

function extremes(values: (number | null)[], factor: number): (number | null)[] {
  const found: (number | null)[] = []
  for (let at = 0; at < values.length; at += factor) {
    let low: number | null = null
    let high: number | null = null
    let rises = false
    for (let i = at; i < Math.min(at + factor, values.length); i++) {
      const value = values[i]!
      if (value === null) continue
      if (low === null || value < low) {
        low = value
        rises = false
      }
      if (high === null || value > high) {
        high = value
        rises = true
      }
    }
    found.push(rises ? low : high, rises ? high : low)
  }
  return found
}
