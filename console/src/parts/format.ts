// Numbers and times as people read them.
// Formatters are kept: to make one takes longer than to draw a chart.
const decimals = [0, 1, 2, 3, 4].map(
  (digits) => new Intl.NumberFormat('en', { maximumFractionDigits: digits }),
)
export const number = (value: number | null | undefined, digits = 1) =>
  value == null ? '–' : decimals[digits]!.format(value)

export function seconds(value: number | null | undefined): string {
  if (value == null) return '–'
  if (value < 0.0995) return `${Math.round(value * 1000)} ms`
  if (value < 10) return `${value.toFixed(2)} s`
  if (value < 120) return `${Math.round(value)} s`
  if (value < 7200) return `${Math.round(value / 60)} min`
  if (value < 172800) return `${(value / 3600).toFixed(1)} h`
  return `${Math.round(value / 86400)} days`
}

export function bytes(value: number): string {
  for (const unit of ['B', 'KiB', 'MiB', 'GiB', 'TiB']) {
    if (value < 1024 || unit === 'TiB') return `${number(value, value < 10 ? 1 : 0)} ${unit}`
    value /= 1024
  }
  return ''
}

export const money = (value: number | null | undefined) =>
  number(value, value != null && value < 1 ? 4 : 2)

export const percent = (value: number | null | undefined) =>
  value == null ? '–' : `${Math.round(value * 100)} %`

export const when = (at: string | number | null | undefined) => {
  if (at == null) return '–'
  const date = new Date(typeof at === 'number' ? at * 1000 : at)
  return date.toLocaleString('en-GB', { dateStyle: 'medium', timeStyle: 'medium' })
}

const HOUR: Intl.DateTimeFormatOptions = { hour: '2-digit', minute: '2-digit' }
const times = {
  minute: new Intl.DateTimeFormat('en-GB', HOUR),
  second: new Intl.DateTimeFormat('en-GB', { ...HOUR, second: '2-digit' }),
  day: new Intl.DateTimeFormat('en-GB', { day: '2-digit', month: 'short' }),
}
// Of a time axis: Unix seconds.
export const tick = (at: number, unit: keyof typeof times) => times[unit].format(at * 1000)

export function ago(at: string | null): string {
  return at ? `${seconds(Math.max(0, (Date.now() - Date.parse(at)) / 1000))} ago` : 'never'
}
