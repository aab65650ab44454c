variable "name" {
  type = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,25}$", var.name))
    error_message = "name: lower-case letters, digits and -, at most 26, a letter first."
  }
}

variable "vpc_id" {
  type = string
}

variable "public_subnet_ids" {
  description = "Of the load balancer."
  type        = list(string)
}

variable "private_subnet_ids" {
  description = "Of the containers; they reach the images' registry."
  type        = list(string)
}

variable "client_security_group_id" {
  description = "Whose members reach database, Valkey and home folder (module data)."
  type        = string
}

variable "images" {
  description = "api, scheduler and gpu_worker (its CPU build), each with a tag or digest."
  type        = object({ api = string, scheduler = string, gpu_worker = string })
}

variable "architecture" {
  description = "Of the images: X86_64 or ARM64."
  type        = string
  default     = "X86_64"

  validation {
    condition     = contains(["X86_64", "ARM64"], var.architecture)
    error_message = "architecture is X86_64 or ARM64."
  }
}

variable "parameter_arns" {
  description = "By name: database-url, redis-url, secret-key, api-key (module data)."
  type        = map(string)
}

variable "kms_key_arn" {
  type = string
}

variable "bucket" {
  description = "Of adapters (module data)."
  type        = string
}

variable "home" {
  description = "The shared home folder (module data)."
  type        = object({ file_system_id = string, arn = string, access_point_id = string, access_point = string, mount_targets = list(string) })
}

variable "settings" {
  description = "Settings of all processes, as docs/settings.md has them: the driver's among them."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name in keys(var.settings) : startswith(name, "LORAPLEX_") || startswith(name, "OTEL_") || startswith(name, "HF_")])
    error_message = "settings are LORAPLEX_…, OTEL_… and HF_… variables."
  }
}

variable "driver_policies" {
  description = "What scaler and task workers may do besides, as JSON by name: `driver_policy` of each pool."
  type        = map(string)
  default     = {}
}

variable "certificate_arn" {
  description = "Of the public name (module dns)."
  type        = string
}

variable "allowed_cidrs" {
  description = "Who may reach the load balancer."
  type        = list(string)

  validation {
    condition     = length(var.allowed_cidrs) > 0 && alltrue([for each in var.allowed_cidrs : can(cidrhost(each, 0))])
    error_message = "allowed_cidrs: at least one range, such as 203.0.113.0/24."
  }
}

variable "internal" {
  description = "The load balancer is reached from the network alone."
  type        = bool
  default     = false
}

variable "apis" {
  description = "API containers: as many at least, at most. They scale by their CPU."
  type        = object({ min = number, max = number })
  default     = { min = 2, max = 10 }

  validation {
    condition     = var.apis.min >= 1 && var.apis.max >= var.apis.min
    error_message = "apis.min is 1 at least, and not more than apis.max."
  }
}

variable "request_timeout_s" {
  description = "Deadline of a request (LORAPLEX_REQUEST_TIMEOUT_S): the load balancer waits for longer."
  type        = number
  default     = 600

  validation {
    condition     = var.request_timeout_s >= 1 && var.request_timeout_s <= 3900
    error_message = "request_timeout_s is 1 to 3900."
  }
}

variable "metrics_security_group_id" {
  description = "A Prometheus whose members read the metrics of all processes (GET /api/v1/metrics/targets lists them). Unset: nobody."
  type        = string
  default     = null
}

variable "log_days" {
  type    = number
  default = 365
}

variable "protect" {
  description = "Refuse to delete the load balancer."
  type        = bool
  default     = true
}
