variable "name" {
  description = "Of everything here, and the prefix of its parameters: /NAME/…"
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,25}$", var.name))
    error_message = "name: lower-case letters, digits and -, at most 26, a letter first."
  }
}

variable "vpc_id" {
  type = string
}

variable "subnet_ids" {
  description = "Private subnets, one a zone; Valkey's instance lies in the first."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) >= 2
    error_message = "RDS wants subnets in two zones at least."
  }
}

variable "database_class" {
  type    = string
  default = "db.t4g.small"
}

variable "database_gib" {
  description = "To begin with; it grows by itself to ten times as much."
  type        = number
  default     = 20

  validation {
    condition     = var.database_gib >= 20
    error_message = "RDS gives 20 GiB at least."
  }
}

variable "multi_az" {
  description = "A standby of the database in a second zone."
  type        = bool
  default     = true
}

variable "backup_days" {
  description = "The database can be brought back to any second of so many days."
  type        = number
  default     = 14

  validation {
    condition     = var.backup_days >= 1 && var.backup_days <= 35
    error_message = "backup_days is 1 to 35."
  }
}

variable "protect" {
  description = "Refuse to destroy the database, and keep a last snapshot. false for what may be lost."
  type        = bool
  default     = true
}

variable "valkey" {
  description = "instance: Valkey on a machine of its own, whose append-only file survives a restart. elasticache: managed, with a replica in a second zone; what was accepted within the last second before a failover may be lost."
  type        = string
  default     = "instance"

  validation {
    condition     = contains(["instance", "elasticache"], var.valkey)
    error_message = "valkey is instance or elasticache."
  }
}

variable "valkey_type" {
  description = "An instance type (arm64) or a node type, as `valkey` says. Unset: t4g.medium, cache.t4g.medium."
  type        = string
  default     = null
}

variable "elasticache_passwords" {
  description = "With `elasticache`: passwords of the users platform and replica, 16 to 128 letters and digits. ElastiCache takes none that aren't in the state."
  type        = object({ platform = string, replica = string })
  default     = null
  sensitive   = true

  validation {
    condition     = var.valkey == "instance" || var.elasticache_passwords != null
    error_message = "elasticache wants elasticache_passwords."
  }
}

variable "valkey_image" {
  description = "With `instance`: the container image."
  type        = string
  default     = "valkey/valkey:8-bookworm"
}

variable "ami_id" {
  description = "With `instance`: Amazon Linux 2023 for arm64. Unset: its latest."
  type        = string
  default     = null
}

variable "secrets_version" {
  description = "Raise it to make passwords and the first API key anew, but not the key that locks what is stored. Valkey's machine is replaced; processes and replicas have to be started again; the old API key is valid until you revoke it."
  type        = number
  default     = 1
}
