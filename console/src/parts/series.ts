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
