// Numbers and times as people read them.
export const number = (value: number | null | undefined, digits = 1) =>
  value == null ? '–' : value.toLocaleString('en', { maximumFractionDigits: digits })

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
  value == null ? '–' : value.toLocaleString('en', { maximumFractionDigits: value < 1 ? 4 : 2 })

export const percent = (value: number | null | undefined) =>
  value == null ? '–' : `${Math.round(value * 100)} %`

export const when = (at: string | number | null | undefined) => {
  if (at == null) return '–'
  const date = new Date(typeof at === 'number' ? at * 1000 : at)
  return date.toLocaleString('en-GB', { dateStyle: 'medium', timeStyle: 'medium' })
}

export const clock = (at: string) => new Date(at).toLocaleTimeString('en-GB')

export function ago(at: string | null): string {
  return at ? `${seconds(Math.max(0, (Date.now() - Date.parse(at)) / 1000))} ago` : 'never'
}
