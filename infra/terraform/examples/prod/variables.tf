variable "name" {
  type    = string
  default = "loraplex"
}

variable "zones" {
  description = "Availability zones of the provider's region."
  type        = list(string)
}

variable "registry" {
  description = "Where the images are, such as 123456789012.dkr.ecr.eu-central-1.amazonaws.com/loraplex."
  type        = string

  validation {
    condition     = endswith(var.registry, "/loraplex")
    error_message = "registry ends in /loraplex: roles may pull loraplex/… alone."
  }
}

variable "release" {
  description = "The images' tag; replicas' is RELEASE-cuda."
  type        = string

  validation {
    condition     = var.release != "latest"
    error_message = "Name a release: latest is another tomorrow."
  }
}

variable "domain" {
  type = string
}

variable "zone_id" {
  description = "The hosted zone of the domain."
  type        = string
}

variable "allowed_cidrs" {
  description = "Who may reach the platform: [\"0.0.0.0/0\"] is everybody with a key."
  type        = list(string)
}

variable "pools" {
  description = "GPU pools by name: at most so many instances, at a price an hour."
  type        = map(object({ accelerator = string, most = number, price_h = number, spot = optional(bool, false), warm = optional(number, 0) }))
  default = {
    l4-spot = { accelerator = "L4", most = 4, price_h = 0.4, spot = true }
    l4      = { accelerator = "L4", most = 2, price_h = 0.9 }
  }

  validation {
    condition     = length(var.pools) > 0 && alltrue([for each in var.pools : each.most >= 1 && each.price_h > 0])
    error_message = "pools: at least one, each with most of 1 or more and its price."
  }
}

variable "emails" {
  description = "Who is told of alarms."
  type        = list(string)
  default     = []
}

variable "protect" {
  description = "false: `terraform destroy` removes everything, data too."
  type        = bool
  default     = true
}

variable "apis" {
  description = "API containers: as many at least, at most. They scale by their CPU."
  type        = object({ min = number, max = number })
  default     = { min = 2, max = 10 }
}

variable "valkey_type" {
  description = "Instance type of the queue (arm64). Unset: t4g.medium; docs/capacity.md says when it gets full."
  type        = string
  default     = null
}

variable "valkey_ami_id" {
  type    = string
  default = null
}

variable "gpu_ami_id" {
  description = "An image with driver, container image and models in it starts sooner (infra/ec2)."
  type        = string
  default     = null
}
